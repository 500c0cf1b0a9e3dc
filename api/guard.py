"""What stands before every route: login, no requests from other sites, nothing fetched from elsewhere."""

import base64
import binascii
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
LOCAL_NAMES = {"127.0.0.1", "localhost", "::1"}
POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
          "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
          "frame-ancestors 'self'; base-uri 'self'; form-action 'self'")
"""Gradio needs inline and evaluated scripts; what matters is that only this server is asked for anything."""


class Guard:
    """ASGI middleware over the whole application, so that no route can be forgotten.

    login: (user, password) asked for by HTTP Basic, or None; then only requests to a name of this machine are
    answered, so that no other site can point its own name here (DNS rebinding). Requests that a browser sends on
    behalf of another site's page are refused whoever is logged in.
    """

    def __init__(self, app: ASGIApp, login: tuple[str, str] | None):
        self.app, self.login = app, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._logged_in(headers):
            refusal = PlainTextResponse("A login is needed.", 401, {"WWW-Authenticate": 'Basic realm="Palimpsest"'})
        elif self.login is None and host_name("//" + headers.get("host", "")) not in LOCAL_NAMES:
            refusal = PlainTextResponse("Without a login this page answers at 127.0.0.1 and localhost only.", 403)
        elif self._from_elsewhere(scope, headers):
            refusal = PlainTextResponse("Requests from other sites are refused.", 403)
        else:
            refusal = None
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Content-Security-Policy", POLICY)
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def _logged_in(self, headers: Headers) -> bool:
        if self.login is None:
            return True
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and secrets.compare_digest(given, ":".join(self.login).encode())

    @staticmethod
    def _from_elsewhere(scope: Scope, headers: Headers) -> bool:
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
