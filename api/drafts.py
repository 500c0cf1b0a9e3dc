"""Uploads of the page's canvases before Generate: each file is checked on arrival and belongs to the browser that sent it."""

import secrets
from functools import partial
from http.cookies import CookieError, SimpleCookie

from anyio import open_file, to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from api.bodies import let_go
from api.errors import Json, refused
from pipeline.drafts import MAX_BYTES, NAME, Drafts
from pipeline.errors import InvalidRequest, PalimpsestError

VISITOR = "palimpsest-visitor"
"""The cookie, unreadable for scripts, that identifies a draft's owner."""
FIELDS = {"picture": "init_images", "mask": "mask", "paint": "mask", "reference": "reference_images"}
"""Kind of upload → the request's field."""
ASKED = 16
"""Drafts per query."""


def visitor_of(scope: Scope) -> str:
    """The visitor in a browser's cookie, or ""."""
    try:
        cookie = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(VISITOR)
    except CookieError:
        return ""
    return cookie.value if cookie is not None and NAME.fullmatch(cookie.value) else ""


async def send(request: Request) -> Response:
    """POST a file's bytes, with its kind in the address; answers its name and upright size."""
    drafts: Drafts = request.app.state.drafts
    visitor = visitor_of(request.scope)
    field = FIELDS.get(request.query_params.get("kind", ""))
    try:
        if field is None:
            raise InvalidRequest("kind", f"kind must be one of {', '.join(FIELDS)}")
        new = visitor or secrets.token_hex(16)
        name, size = await received(request, drafts, new, field)
    except PalimpsestError as error:
        return refused(error)
    answer = Json({"draft": name, "width": size.width, "height": size.height})
    if not visitor:
        answer.set_cookie(VISITOR, new, httponly=True, samesite="strict", max_age=30 * 24 * 3600)
    return answer


async def received(request: Request, drafts: Drafts, visitor: str, field: str):
    """The result of Drafts.keep() for the request's body. Raises PalimpsestError."""
    path = await to_thread.run_sync(drafts.room)
    size, kept = 0, False
    try:
        async with await open_file(path, "xb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BYTES:  # the rest is read and discarded: many browsers do not read an answer earlier
                    await file.write(chunk)
                let_go(request.scope, len(chunk))
        if size > MAX_BYTES:
            raise InvalidRequest(field, f"{field}: the file is larger than {MAX_BYTES >> 20} MiB; use a smaller one")
        answer = await to_thread.run_sync(partial(drafts.keep, path, visitor, field))
        kept = True
        return answer
    finally:
        if not kept:
            path.unlink(missing_ok=True)


async def held(request: Request) -> Response:
    """GET with `draft` names in the address; answers which of them are this visitor's and still exist."""
    drafts: Drafts = request.app.state.drafts
    visitor = visitor_of(request.scope)
    names = request.query_params.getlist("draft")[:ASKED]
    return Json([name for name in names if drafts.owned(name, visitor)])
