"""Checks the data of page events: no addresses that Gradio would fetch, no foreign files, bounded size.

Gradio downloads files that an event's data names by address, before any handler sees the data, and has no flag against it.
"""

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import UPLOADS, too_long
from api.drafts import visitor_of
from api.guard import BESIDE_GRADIO, NOT_FETCHED, SAFE_METHODS, is_api, refused
from pipeline.drafts import Drafts
from pipeline.limits import HOUR, network_of

MAX_EVENT = 16 * 2**20
"""Bytes per event; pictures are uploaded separately."""
UPLOADED = 2 * 2**30
"""Bytes per network and hour, on a shared page."""
ADDRESS = re.compile(r"[\s\x00-\x1f]*(?:[a-z][a-z0-9+.-]+:|[/\\]{2})", re.IGNORECASE)
"""The start of an address: a scheme or, on Windows, the name of another machine."""
DRAFT = "draft"
"""The key that names a canvas upload."""
OWN_FILE = "/gradio_api/file="
"""Path of the page's own files."""


class Refused(Exception):
    """Data to keep from Gradio; the message is a sentence."""


class PageEvents:
    """ASGI middleware that refuses page events, on any route, whose data name a file by address, or one of `drafts` that
    belongs to another visitor.

    Everything posted to the page is read as JSON here, whatever its declared type, except uploads and pictures that do not go
    to Gradio.
    """

    def __init__(self, app: ASGIApp, drafts: Drafts | None = None):
        self.app, self.drafts = app, drafts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or is_api(scope) or is_upload(scope) or scope["path"] in BESIDE_GRADIO:
            await self.app(scope, receive, send)
            return
        body = await whole_body(receive, MAX_EVENT)
        if body is None:
            await refused(scope, 413, too_long(MAX_EVENT, "page events are never that long."))(scope, receive, send)
            return
        try:
            check_event(body, hosts_of(scope), lambda name: self.drafts is not None and self.drafts.owned(name, visitor_of(scope)))
        except Refused as refusal:
            await refused(scope, 403, str(refusal))(scope, receive, send)
        except (ValueError, RecursionError):
            await refused(scope, 400, "The body of an event must be JSON, and not nested too deeply.")(scope, receive, send)
        else:
            await self.app(scope, replayed(body, receive), send)


def is_upload(scope: Scope) -> bool:
    """Whether the body is read as files, by Gradio's own rule."""
    return scope["path"] in UPLOADS and Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")


class UploadLimit:
    """ASGI middleware that limits the bytes each network uploads to the page per hour. clock: seconds.

    Everyone who comes through a tunnel or a proxy on this machine counts as one network.
    """

    def __init__(self, app: ASGIApp, limit: int = UPLOADED, clock: Callable[[], float] = time.monotonic):
        self.app, self.limit, self._clock = app, limit, clock
        self._came: dict[str, deque[tuple[float, int]]] = {}
        """Network → (when, bytes) for the last hour."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (*UPLOADS, *BESIDE_GRADIO):
            await self.app(scope, receive, send)
            return
        network, size = network_of((scope.get("client") or ("",))[0]), 0
        if self._left(network) <= 0:
            await refused(scope, 429, f"At most {self.limit >> 20} MiB may be uploaded in an hour; try again later.")(scope, receive, send)
            return

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        try:
            await self.app(scope, receive_counted, send)
        finally:
            self._came.setdefault(network, deque()).append((self._clock(), size))

    def _left(self, network: str) -> int:
        """Bytes that a network may still upload now."""
        begun = self._clock() - HOUR
        for name, came in list(self._came.items()):
            while came and came[0][0] <= begun:
                came.popleft()
            if not came:
                del self._came[name]
        return self.limit - sum(size for _, size in self._came.get(network, ()))


async def whole_body(receive: Receive, limit: int) -> bytes | None:
    """A request's body; None if it exceeds `limit` bytes, with the rest read and discarded.

    If the client disconnects, the part that arrived.
    """
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
        size += len(message.get("body", b""))
        if size <= limit:
            parts.append(message.get("body", b""))
    return b"".join(parts) if size <= limit else None


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that replays the body, then passes on what follows."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return parts.pop() if parts else await receive()

    return replay


def hosts_of(scope: Scope) -> set[str]:
    """The names (with port) by which a browser may know this server, according to the request."""
    headers = Headers(scope=scope)
    named = [headers.get("host"), headers.get("x-forwarded-host", "").partition(",")[0].strip(),
             headers.get("origin", "").partition("://")[2]]
    return {name.lower() for name in named if name}


def check_event(body: bytes, hosts: set[str], owned: Callable[[str], bool] = lambda name: False) -> None:
    """Raise Refused if an object in the JSON, at any depth and even under a repeated key, names a file by address or by a
    path that is not absolute, or a draft that is not `owned`. Raises ValueError or RecursionError for invalid JSON.
    """
    if body.strip():
        json.loads(body, object_pairs_hook=lambda pairs: check_object(pairs, hosts, owned))


def check_object(pairs: list[tuple[str, Any]], hosts: set[str], owned: Callable[[str], bool]) -> dict[str, Any]:
    for key, value in pairs:
        name = key.strip().lower()
        if isinstance(value, str) and (check := CHECKS.get(name)):
            check(value, hosts)
        elif isinstance(value, str) and name == DRAFT and not owned(value):
            raise Refused("A picture of the canvas is no longer kept; press the button again.")
    return dict(pairs)


def check_path(value: str, hosts: set[str]) -> None:
    if ADDRESS.match(value):
        raise Refused(NOT_FETCHED)
    if value and value != os.path.abspath(value):  # Gradio would refuse it too, but reveal the folder
        raise Refused("An event names a file that was not uploaded to this page.")


def check_url(value: str, hosts: set[str]) -> None:
    """A picture on the page carries the address that the browser shows it from."""
    if not ADDRESS.match(value):
        return
    try:
        parts = urlsplit(value)
    except ValueError:
        raise Refused(NOT_FETCHED) from None
    _, own, file = unquote(parts.path).partition(OWN_FILE)
    if parts.scheme not in ("http", "https") or parts.netloc.lower() not in hosts or not own or ADDRESS.match(file):
        raise Refused(NOT_FETCHED)


CHECKS: dict[str, Callable[[str, set[str]], None]] = {"path": check_path, "url": check_url}
"""Checks for the text under each key."""
