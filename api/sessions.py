"""Limits which opened pages Gradio remembers: those still open, and the last few others.

A page's browser chooses its session's name, so anybody can make up any number of them; but only an open page holds a
connection as long as it is open.
"""

from collections import Counter

import gradio as gr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard import refused
from pipeline.limits import network_of

HEARTBEAT = "/gradio_api/heartbeat/"
"""Followed by a session's name: an open page's connection."""
QUEUE = "/gradio_api/queue/data"
"""Where a page receives the results of its events."""
SESSIONS = 64
"""Pages without such a connection to remember, most recently used; each takes one or two MiB."""
OPEN = 256
"""Pages open at once."""
OPEN_OF_ONE = 64
"""Pages open at once per network; everyone who comes through a tunnel or proxy on this machine shares OPEN."""


class Sessions:
    """ASGI middleware that drops Gradio's data of pages that are no longer open, except the last few."""

    def __init__(self, app: ASGIApp, page: gr.Blocks):
        self.app, self.page = app, page
        self._open: Counter[str] = Counter()
        """Connections per session."""
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
        """A stream of the queue. If the session is gone, Gradio says so in the stream, which then ends."""
        try:
            await self.app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _forget(self) -> None:
        known = self.page.state_holder
        strangers = [name for name in list(known.session_data) if name not in self._open]  # least recently used first
        for name in strangers[:-SESSIONS]:
            known.session_data.pop(name, None)
            known.time_last_used.pop(name, None)
