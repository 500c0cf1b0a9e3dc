"""Serves the page's own scripts and styles as modules; the first one runs before Gradio starts."""

import os

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WEB = "/web"
"""Their path."""
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Fixed here, as some systems map .js to another type, which browsers refuse."""
GRADIO = b'<script type="module"'
"""The start of the first of Gradio's own modules in the page."""


class Web(StaticFiles):
    """Static files with fixed types; browsers revalidate them on every load."""

    def file_response(self, full_path: os.PathLike | str, stat_result: os.stat_result, scope: Scope, status_code: int = 200) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        if kind := KINDS.get(os.path.splitext(full_path)[1]):
            response.headers["Content-Type"] = f"{kind}; charset=utf-8"
        return response


class Head:
    """ASGI middleware that adds to the page's head, before Gradio's first module: scripts run in that order.

    Gradio's own `head` would be added once Gradio has started.
    """

    def __init__(self, app: ASGIApp, head: str):
        self.app, self.head = app, head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        parts: list[bytes] = []

        async def send_page(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                if not message.get("more_body"):
                    body = b"".join(parts).replace(GRADIO, self.head + GRADIO, 1)
                    MutableHeaders(scope=start)["Content-Length"] = str(len(body))
                    await send(start)
                    await send(message | {"body": body})

        await self.app(scope | {"headers": plain}, receive, send_page)
