"""Enlarges a canvas's picture at its sides; the result becomes a draft of the same browser, and its pixels are returned."""

import json

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from api.backend import Backend
from api.drafts import visitor_of
from api.errors import refused
from api.pictures import png_bytes
from pipeline.drafts import Drafts
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.infotext import png_info
from pipeline.outpaint import Margins, check, extended
from pipeline.uploads import open_file, open_picture, upright_size

FIELD = "init_images"


async def larger_picture(request: Request) -> Response:
    """POST with a draft's name as `picture`, and `left`, `top`, `right`, `bottom`, `fill` and `colour`, in the query string.

    Returns the larger picture as PNG; X-Draft holds its draft's name, X-Notes a JSON list of notes on what was changed.
    """
    here: Backend = request.app.state.backend
    drafts: Drafts = request.app.state.drafts
    asked, visitor = request.query_params, visitor_of(request.scope)

    def make() -> Response:
        name = asked.get("picture", "")
        if not drafts.owned(name, visitor):
            raise InvalidRequest(FIELD, f"{FIELD}: the picture is no longer kept; add it again")
        path = drafts.path(name, FIELD)
        size = upright_size(open_file(path, FIELD))
        margins = check(size, Margins(*(asked.get(side, "0") for side in Margins.__dataclass_fields__)))
        whole = margins.around(size)
        with here.engine.shelf.reading(size.width * size.height + whole.width * whole.height, FIELD):
            upload = open_picture(path, FIELD)
            picture = extended(upload.image, margins, asked.get("fill", ""), asked.get("colour", "#808080"))
            data = png_bytes(picture, png_info(None), upload.exif)
        return Response(data, media_type="image/png", headers={"X-Draft": drafts.keep_bytes(data, visitor, FIELD),
                                                                         "X-Notes": json.dumps(upload.notes)})

    try:
        return await to_thread.run_sync(make, limiter=here.pictures)
    except PalimpsestError as error:
        return refused(error)
