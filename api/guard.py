"""What stands before every route: login, what visitors may do, no requests from other sites."""

import secrets
from collections.abc import Iterable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Json, error_answer
from api.logins import Guesses, Login, among, login_in
from api.visitors import may_ask
from pipeline.limits import network_of

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
          "frame-ancestors 'self'; base-uri 'self'; form-action 'self'")
"""Gradio needs inline and evaluated scripts; what matters is that only this server is asked for anything."""
API_PATHS = ("/sdapi/", "/internal/", "/docs", "/openapi.json")
"""What is not the page's."""
SHOWN = "/shown-picture"
"""Where the page sends the bytes of a picture that browsers cannot show; Gradio sees nothing of it."""
DRAFTS = "/canvas-drafts"
"""Where a canvas of the page sends its picture and mask; Gradio sees nothing of them."""
BESIDE_GRADIO = (SHOWN, DRAFTS)
"""Where the page posts bytes that are not for Gradio."""
FILES = ("/gradio_api/file=", "/gradio_api/file/")
"""Where Gradio would fetch from an address too."""
NOT_FETCHED = "Nothing is fetched from elsewhere."
KNOWN = "palimpsest-known"
"""A cookie of browsers that have logged in before."""


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
    is logged in, and no other site may read answers. After too many wrong logins from one network its logins are refused
    unread for a while; a browser that had logged in before is told from the others there by a cookie.
    """

    def __init__(self, app: ASGIApp, login: Login | None, api_logins: Iterable[Login] = (), origins: Iterable[str] = (),
                 *, shared: bool = False):
        self.app, self.origins, self.shared = app, frozenset(origins), shared
        self._page = [login] if login else []
        self._owners = list(api_logins)
        self._guesses, self._known = Guesses(), secrets.token_urlsafe(32)

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
        meets = bool(self._page) and not is_api(scope) and not self._has_met(headers)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.setdefault("Content-Security-Policy", POLICY)
                for name in [name for name in answer if name.lower().startswith("access-control-")]:  # Gradio's own
                    del answer[name]
                if meets:
                    answer.append("Set-Cookie", f"{KNOWN}={self._known}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        with suppress(ClientDisconnect):  # raised while a request's body is read: nobody is there to be answered
            await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers, login: Login | None) -> Response | None:
        logins = self._page + self._owners if is_api(scope) else self._page
        if logins and (refusal := self._check_login(scope, headers, login, logins)) is not None:
            return refusal
        if is_api(scope) and not scope["state"]["owner"] and not may_ask(scope["method"], scope["path"]):
            return refused(scope, 403, f'{scope["path"]} is for logins of --api-auth on a shared page.')
        if scope["path"].startswith(FILES) and "://" in scope["path"]:
            return refused(scope, 403, NOT_FETCHED)
        if not logins and host_name("//" + headers.get("host", "")) not in LOCAL_NAMES:
            return refused(scope, 403, "Without a login this page answers at 127.0.0.1 and localhost only; "
                                         "to reach it by another name start it with --auth.")
        if headers.get("origin") not in self.origins and from_elsewhere(scope, headers):
            return refused(scope, 403, other_site(headers))
        return None

    def _check_login(self, scope: Scope, headers: Headers, login: Login | None, logins: list[Login]) -> Response | None:
        """The refusal of a request without one of the logins, or of one too many guesses."""
        network = network_of((scope.get("client") or ("",))[0])
        met = self._page and not is_api(scope) and self._has_met(headers)
        wait = 0 if login is None or met else self._guesses.wait(network)
        if wait:
            return refused(scope, 429, f"There were too many wrong logins; try again in {wait} seconds.", {"Retry-After": str(wait)})
        if among(login, logins):
            return None
        if login is not None:
            self._guesses.wrong(network)
        return ask_for_login(scope, headers)

    def _has_met(self, headers: Headers) -> bool:
        """Whether a browser has logged in before."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(KNOWN)
        except CookieError:
            return False
        return cookie is not None and secrets.compare_digest(cookie.value.encode(), self._known.encode())


def ask_for_login(scope: Scope, headers: Headers) -> Response:
    detail = "Incorrect username or password" if "authorization" in headers else "Not authenticated"
    return refused(scope, 401, detail if is_api(scope) else "A login is needed.",
                   {"WWW-Authenticate": 'Basic realm="Palimpsest"'})


def refused(scope: Scope, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """The sentence in the API's shape, as JSON that the page shows in a toast, or as text where a browser opens an address."""
    if is_api(scope):
        return Json(error_answer(HTTPException(status, sentence))[1], status, headers)
    if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
        return Json({"error": sentence, "detail": sentence}, status, headers)
    return PlainTextResponse(sentence, status, headers)


def from_elsewhere(scope: Scope, headers: Headers) -> bool:
    """Whether a browser says that another site's page makes this request; following a link to here is no such."""
    site = headers.get("sec-fetch-site")
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
        return site == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
    if site is not None:  # no page can forge it; browsers leave it out where they speak plain HTTP to another machine
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and not is_here(origin, headers)


def is_here(origin: str, headers: Headers) -> bool:
    """Whether a page of that origin is ours: its address is the one that was asked, as it came or as a proxy passes it on.

    A proxy may pass the name on without its port. X-Forwarded-Host no other site's page can set without being asked first.
    """
    if not origin.startswith(("http://", "https://")):
        return False
    address = origin.partition("://")[2].lower()
    asked = [headers.get(name, "").partition(",")[0].strip().lower() for name in ("host", "x-forwarded-host")]
    return address in asked or host_name("//" + address) in asked


def other_site(headers: Headers) -> str:
    """Why a request is refused, and what to do where it was the browser of the page itself behind a proxy."""
    sentence = "Requests from other sites are refused."
    origin = headers.get("origin", "")
    if "sec-fetch-site" in headers or not origin.startswith(("http://", "https://")):
        return sentence
    return (f"{sentence} This one is of a page at {origin[:200]}, but asks for {headers.get('host', '')[:200]}: a proxy between "
            "them must pass the Host header on.")


def host_name(address: str) -> str | None:
    """The host in an address, None where it is malformed."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
