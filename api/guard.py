"""What stands before every route: login, what visitors may do, no requests from other sites, nothing fetched from elsewhere,
no endless bodies."""

import base64
import binascii
import secrets
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Json, error_answer
from api.visitors import may_ask

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
          "frame-ancestors 'self'; base-uri 'self'; form-action 'self'")
"""Gradio needs inline and evaluated scripts; what matters is that only this server is asked for anything."""
API_PATHS = ("/sdapi/", "/internal/", "/docs", "/openapi.json")
"""What is not the page's."""
FILES = ("/gradio_api/file=", "/gradio_api/file/")
"""Where Gradio would fetch from an address too."""
Login = tuple[str, str]
"""User and password."""


def is_api(scope: Scope) -> bool:
    return scope["path"].startswith(API_PATHS)


class Guard:
    """ASGI middleware over the whole application, so that no route can be forgotten.

    login: asked for by HTTP Basic, by the page and by the API; None: the page asks for none.
    api_logins: others that the API accepts; where there are any, it asks for one even if the page does not.
    origins: other sites, as "https://example.org", whose pages may send requests.
    shared: the page's login is for visitors, who may use a part of the API only; otherwise, and with one of api_logins, who
    comes is the owner. Routes find this as `request.state.owner`, and the login's user as `request.state.user`.

    Where no login is asked for, only requests to a name of this machine are answered, so that no other site can point
    its own name here (DNS rebinding). Requests that a browser sends on behalf of another site's page are refused whoever
    is logged in.
    """

    def __init__(self, app: ASGIApp, login: Login | None, api_logins: Iterable[Login] = (), origins: Iterable[str] = (),
                 *, shared: bool = False):
        self.app, self.origins, self.shared = app, frozenset(origins), shared
        self._page = [login] if login else []
        self._owners = list(api_logins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        login = login_in(headers)
        owner = not self.shared or among(login, self._owners)
        scope.setdefault("state", {}).update(user=login[0] if login else "", owner=owner)
        refusal = self._refusal(scope, headers, login)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", POLICY)
            await send(message)

        with suppress(ClientDisconnect):  # raised while a request's body is read: nobody is there to be answered
            await self.app(scope, receive, send_with_policy)

    def _refusal(self, scope: Scope, headers: Headers, login: Login | None) -> Response | None:
        logins = self._page + self._owners if is_api(scope) else self._page
        if logins and not among(login, logins):
            return ask_for_login(scope, headers)
        if is_api(scope) and not scope["state"]["owner"] and not may_ask(scope["method"], scope["path"]):
            return refused(scope, 403, f'{scope["path"]} is for logins of --api-auth on a shared page.')
        if scope["path"].startswith(FILES) and "://" in scope["path"]:
            return refused(scope, 403, "Nothing is fetched from elsewhere.")
        if not logins and host_name("//" + headers.get("host", "")) not in LOCAL_NAMES:
            return refused(scope, 403, "Without a login this page answers at 127.0.0.1 and localhost only.")
        if headers.get("origin") not in self.origins and from_elsewhere(scope, headers):
            return refused(scope, 403, "Requests from other sites are refused.")
        return None


def login_in(headers: Headers) -> Login | None:
    """The login that a request carries, right or wrong."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    try:
        user, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if scheme.lower() == "basic" and colon else None


def among(login: Login | None, logins: list[Login]) -> bool:
    """Whether the login is one of them."""
    given = ":".join(login or ()).encode()
    matches = [secrets.compare_digest(given, ":".join(one).encode()) for one in logins]  # all, so that time tells nothing
    return any(matches)


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
