"""Which opened pages Gradio remembers: those that are open, and of the others the last few.

What a page's session is called its browser chooses, so anybody may make up as many as they like; what an open page has
besides is a connection that lasts as long as it is open.
"""

from collections import Counter

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard import refused
from pipeline.limits import network_of

HEARTBEAT = "/gradio_api/heartbeat/"
"""Followed by a session's name: the connection of an open page."""
QUEUE = "/gradio_api/queue/data"
"""Where a page hears what comes of its events."""
SESSIONS = 64
"""Pages without such a connection that are remembered, a MiB or two each: those used last."""
OPEN = 256
"""Pages that may be open."""
OPEN_OF_ONE = 64
"""And those of one network; all who come through a tunnel or a proxy on this machine share OPEN."""


class Sessions:
    """ASGI middleware that lets go of what Gradio remembers of pages that are not open, beyond the last few."""

    def __init__(self, app: ASGIApp, page: gr.Blocks):
        self.app, self.page = app, page
        self._open: Counter[str] = Counter()
        """Connections by session."""
        self._networks: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(HEARTBEAT):
            await (self._hear if path == QUEUE else self.app)(scope, receive, send)
            self._forget()
            return
        network = network_of((scope.get("client") or ("",))[0])
        if self._networks.total() >= OPEN or (network and self._networks[network] >= OPEN_OF_ONE):
            await refused(scope, 429, "Too many pages are open; close one.")(scope, receive, send)
            return
        session = path.removeprefix(HEARTBEAT)
        for counter, name in ((self._open, session), (self._networks, network)):
            counter[name] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            for counter, name in ((self._open, session), (self._networks, network)):
                counter[name] -= 1
                if not counter[name]:
                    del counter[name]

    async def _hear(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A stream of the queue. Where nothing of the session is left, Gradio tells the page so in the stream, which then ends."""
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _forget(self) -> None:
        known = self.page.state_holder
        strangers = [name for name in list(known.session_data) if name not in self._open]  # used longest ago first
        for name in strangers[:-SESSIONS]:
            known.session_data.pop(name, None)
            known.time_last_used.pop(name, None)
