"""Running behind a proxy: under a path of another server, and under its outside name.

Proxies pass on little of what the browser sees; nginx by default sends its own name for this server as Host. So the page
asks its browser where it is, and events are answered for the address that they report.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard import SAFE_METHODS, is_api

LOOK_AROUND = """<script>{
const told = window.gradio_config.root, here = new URL(".", location.href).href.replace(/\\/$/, "");
if (told && told !== here) window.gradio_config = JSON.parse(JSON.stringify(window.gradio_config).replaceAll(told, here));
}</script>
"""
"""Runs before Gradio starts: replaces every address of this server by the one that the browser opened."""
FORWARDED = ("x-forwarded-host", "x-forwarded-proto", "x-gradio-server")
"""Headers that Gradio trusts more than Host."""


class Subpath:
    """ASGI middleware that answers under a path such as "/palimpsest" as at the root, whether or not the proxy strips it."""

    def __init__(self, app: ASGIApp, subpath: str):
        self.app, self.subpath = app, subpath

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == self.subpath and scope["type"] == "http":
            await RedirectResponse(f"{self.subpath}/", 307)(scope, receive, send)
            return
        if path.startswith(f"{self.subpath}/"):
            path = path[len(self.subpath):]
            scope = scope | {"path": path, "raw_path": path.encode()}
        await self.app(scope, receive, send)


class OwnAddress:
    """ASGI middleware that tells Gradio the address that the browser uses. Runs behind the guard.

    origins: other sites; their addresses are not ours.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str] = ()):
        self.app, self.origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope if scope["type"] != "http" or is_api(scope) else self._named(scope), receive, send)

    def _named(self, scope: Scope) -> Scope:
        """The request as if there were no proxy."""
        origin = Headers(scope=scope).get("origin", "")
        scheme, _, address = origin.partition("://")
        if scope["method"] in SAFE_METHODS or origin in self.origins or scheme not in ("http", "https"):
            return scope
        kept = [(name, value) for name, value in scope["headers"] if name.decode("latin-1") not in ("host", *FORWARDED)]
        return scope | {"scheme": scheme, "headers": [*kept, (b"host", address.encode("latin-1"))]}
