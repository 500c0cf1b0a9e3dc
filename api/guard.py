"""Guards every route: login, visitors' permissions, no requests from other sites."""

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
"""Gradio needs inline and evaluated scripts; the point is that only this server is contacted."""
API_PATHS = ("/sdapi/", "/internal/", "/controlnet/", "/adetailer/", "/docs", "/openapi.json")
"""Paths of the API rather than the page."""
SHOWN = "/shown-picture"
"""The page posts pictures that browsers cannot show here, bypassing Gradio."""
SHOWN_MASK = "/shown-mask"
"""The page posts masks here to see what they count as."""
DRAFTS = "/canvas-drafts"
"""The page's canvases post pictures and masks here, bypassing Gradio."""
SELECTIONS = "/canvas-selections"
"""The page's canvases ask here what to select in a picture, bypassing Gradio."""
LARGER = "/larger-picture"
"""A canvas has its picture enlarged here."""
BESIDE_GRADIO = (SHOWN, SHOWN_MASK, DRAFTS, SELECTIONS, LARGER)
"""Where the page posts bytes, bypassing Gradio."""
FILES = ("/gradio_api/file=", "/gradio_api/file/")
"""Paths where Gradio would also fetch addresses."""
NOT_FETCHED = "Files are not fetched from other servers."
KNOWN = "palimpsest-known"
"""A cookie of browsers that have logged in before."""


def is_api(scope: Scope) -> bool:
    return scope["path"].startswith(API_PATHS)


class Guard:
    """ASGI middleware over the whole application, so that no route can be forgotten.

    login: required by HTTP Basic on page and API; None: the page needs none.
    api_logins: also accepted by the API; if there are any, the API requires one even if the page does not.
    origins: other sites, such as "https://example.org", whose pages may send requests.
    shared: the page's login is for visitors, who may use only part of the API; everyone else is the owner. Routes find this in
    `request.state.owner`, and the login's user in `request.state.user`.

    Without a login, only requests to a local host name are answered, so that another site cannot point its own name here (DNS
    rebinding). Requests that a browser makes on behalf of another site's page are refused whoever is logged in, and no other
    site may read answers. After too many wrong logins, a network's logins are refused unread for a while; a cookie exempts
    browsers that had logged in before.
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

        with suppress(ClientDisconnect):  # raised while reading a body: there is nobody left to answer
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
        """The refusal of a request without a valid login, or after too many wrong ones."""
        network = network_of((scope.get("client") or ("",))[0])
        met = self._page and not is_api(scope) and self._has_met(headers)
        wait = 0 if login is None or met else self._guesses.wait(network)
        if wait:
            return refused(scope, 429, f"Too many wrong logins; try again in {wait} seconds.", {"Retry-After": str(wait)})
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
    """The sentence as JSON in the API's form (the page shows it in a toast), or as text if a browser opens the address."""
    if is_api(scope):
        return Json(error_answer(HTTPException(status, sentence))[1], status, headers)
    if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
        return Json({"error": sentence, "detail": sentence}, status, headers)
    return PlainTextResponse(sentence, status, headers)


def from_elsewhere(scope: Scope, headers: Headers) -> bool:
    """Whether a browser reports that another site's page makes this request; following a link to here is not one."""
    site = headers.get("sec-fetch-site")
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
        return site == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
    if site is not None:  # pages cannot forge it; browsers omit it over plain HTTP to another machine
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and not is_here(origin, headers)


def is_here(origin: str, headers: Headers) -> bool:
    """Whether a page of that origin is ours: the requested host, as sent or as forwarded by a proxy.

    A proxy may drop the port. Another site's page cannot set X-Forwarded-Host without a preflight request.
    """
    if not origin.startswith(("http://", "https://")):
        return False
    address = origin.partition("://")[2].lower()
    asked = [headers.get(name, "").partition(",")[0].strip().lower() for name in ("host", "x-forwarded-host")]
    return address in asked or host_name("//" + address) in asked


def other_site(headers: Headers) -> str:
    """Why a request is refused, with advice in case it was our own page behind a proxy."""
    sentence = "Requests from other sites are refused."
    origin = headers.get("origin", "")
    if "sec-fetch-site" in headers or not origin.startswith(("http://", "https://")):
        return sentence
    return (f"{sentence} This one comes from a page at {origin[:200]}, but asks for {headers.get('host', '')[:200]}: a proxy between "
            "them must pass on the Host header.")


def host_name(address: str) -> str | None:
    """The host in an address; None if it is malformed."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
