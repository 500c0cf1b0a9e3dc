"""Selecting in a canvas's picture: by a box, a stroke, along edges, or by clicks with a model."""

import json
import zlib

import numpy as np
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from api.drafts import visitor_of
from api.errors import Json, refused
from pipeline.errors import InvalidRequest, PalimpsestError
from pipeline.selecting import Selecting

MAX_BODY = 1 << 18
"""Bytes per request; a stroke of 4096 points takes about half."""
GONE = 410
"""Status if the picture must be uploaded again."""
GZIP = zlib.MAX_WBITS | 16
AREA = "Selected-Area"
"""Header with the box, x1 y1 x2 y2, that a mask's bytes cover; outside it nothing is selected."""


async def select(request: Request) -> Response:
    """POST the arguments of Selecting.answer() as JSON: a mask's bytes row by row, or {"path": [[x, y], ...]}."""
    selecting: Selecting = request.app.state.selecting
    visitor = visitor_of(request.scope)
    try:
        asked = await question(request)
        found = await to_thread.run_sync(selecting.answer, asked, visitor, limiter=request.app.state.selecting_threads)
    except PalimpsestError as error:
        return refused(error, GONE if getattr(error, "field", "") == "draft" else None)
    return Json({"path": found}) if isinstance(found, list) else await to_thread.run_sync(mask_answer, found)


async def question(request: Request) -> dict:
    """The body's JSON object. Raises InvalidRequest."""
    body = b""
    async for chunk in request.stream():
        if len(body) <= MAX_BODY:  # read the rest too: many browsers see no answer before they have sent everything
            body += chunk
    try:
        asked = json.loads(body) if len(body) <= MAX_BODY else None
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise InvalidRequest("body", f"The body must be a JSON object of at most {MAX_BODY >> 10} KiB.")
    return asked


def mask_answer(mask: np.ndarray) -> Response:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    x1, y1, x2, y2 = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)
    packer = zlib.compressobj(1, wbits=GZIP)
    content = packer.compress(np.ascontiguousarray(mask[y1:y2, x1:x2])) + packer.flush()
    return Response(content, media_type="application/octet-stream", headers={AREA: f"{x1} {y1} {x2} {y2}", "Content-Encoding": "gzip"})


async def models(request: Request) -> Response:
    """GET: the names of the models that clicks may use."""
    selecting: Selecting = request.app.state.selecting
    return Json(await to_thread.run_sync(selecting.models))
