"""What stands before every route: login, no requests from other sites, nothing fetched from elsewhere, no endless bodies."""

import base64
import binascii
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Json, error_answer

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
          "frame-ancestors 'self'; base-uri 'self'; form-action 'self'")
"""Gradio needs inline and evaluated scripts; what matters is that only this server is asked for anything."""
API_PATHS = ("/sdapi/", "/internal/", "/docs", "/openapi.json")
"""What is not the page's."""
Login = tuple[str, str]
"""User and password."""


def is_api(scope: Scope) -> bool:
    return scope["path"].startswith(API_PATHS)


class Guard:
    """ASGI middleware over the whole application, so that no route can be forgotten.

    login: asked for by HTTP Basic, by the page and by the API; None: the page asks for none.
    api_logins: others that the API accepts; where there are any, it asks for one even if the page does not.
    origins: other sites, as "https://example.org", whose pages may send requests.

    Where no login is asked for, only requests to a name of this machine are answered, so that no other site can point
    its own name here (DNS rebinding). Requests that a browser sends on behalf of another site's page are refused whoever
    is logged in.
    """

    def __init__(self, app: ASGIApp, login: Login | None, api_logins: Iterable[Login] = (), origins: Iterable[str] = ()):
        self.app, self.origins = app, frozenset(origins)
        self._page = encoded([login] if login else [])
        self._api = self._page + encoded(api_logins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", POLICY)
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        logins = self._api if is_api(scope) else self._page
        if logins and not logged_in(headers, logins):
            return ask_for_login(scope, headers)
        if not logins and host_name("//" + headers.get("host", "")) not in LOCAL_NAMES:
            return refused(scope, 403, "Without a login this page answers at 127.0.0.1 and localhost only.")
        if headers.get("origin") not in self.origins and from_elsewhere(scope, headers):
            return refused(scope, 403, "Requests from other sites are refused.")
        return None


def encoded(logins: Iterable[Login]) -> list[bytes]:
    return [":".join(login).encode() for login in logins]


def logged_in(headers: Headers, logins: list[bytes]) -> bool:
    """Whether the request carries one of the logins."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    try:
        decoded = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        return False
    matches = [secrets.compare_digest(decoded, login) for login in logins]  # all, so that time tells nothing
    return scheme.lower() == "basic" and any(matches)


def ask_for_login(scope: Scope, headers: Headers) -> Response:
    detail = "Incorrect username or password" if "authorization" in headers else "Not authenticated"
    return refused(scope, 401, detail if is_api(scope) else "A login is needed.",
                   {"WWW-Authenticate": 'Basic realm="Palimpsest"'})


def refused(scope: Scope, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """The sentence as the page's visitors read it, or in the API's shape."""
    if is_api(scope):
        return Json(error_answer(HTTPException(status, sentence))[1], status, headers)
    return PlainTextResponse(sentence, status, headers)


def from_elsewhere(scope: Scope, headers: Headers) -> bool:
    """Whether a browser says that another site's page makes this request; following a link to here is no such."""
    site = headers.get("sec-fetch-site", "none")
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
        return site == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
    origin = headers.get("origin")
    return site not in ("same-origin", "none") or (
        origin is not None and origin.partition("://")[2] != headers.get("host"))


def host_name(address: str) -> str | None:
    """The host in an address, None where it is malformed."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


class BodyLimit:
    """ASGI middleware that answers 413 to an API request whose body has more than `limit` bytes.

    The rest of such a body is read and thrown away, as many clients hear no answer before they have sent everything.
    """

    def __init__(self, app: ASGIApp, limit: int):
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_api(scope):
            await self.app(scope, receive, send)
            return
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limit:
                await drain(message, receive)
                raise HTTPException(413, f"The request's body is larger than {self.limit >> 20} MiB; "
                                         "send fewer or smaller pictures.")
            return message

        await self.app(scope, receive_bounded, send)


async def drain(message: Message, receive: Receive) -> None:
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
