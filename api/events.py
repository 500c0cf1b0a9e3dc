"""What the page's events carry: nothing that Gradio would fetch from elsewhere, no file but those of the page, no endless data.

Gradio downloads a file that an event's data names by an address, before any handler sees the data, and asks no flag of ours.
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
"""Bytes of one event's data: pictures are not in it, they are uploaded before."""
UPLOADED = 2 * 2**30
"""Bytes that come from one network in an hour, to a shared page."""
ADDRESS = re.compile(r"[\s\x00-\x1f]*(?:[a-z][a-z0-9+.-]+:|[/\\]{2})", re.IGNORECASE)
"""How an address begins: with a scheme, or, as Windows reads it, with the name of another machine."""
DRAFT = "draft"
"""What names a file that a canvas has sent."""
OWN_FILE = "/gradio_api/file="
"""Where the page's own files are served."""


class Refused(Exception):
    """Data that Gradio is not to see, with a sentence."""


class PageEvents:
    """ASGI middleware that refuses events of the page, sent by whichever route, whose data name a file by an address, or one of
    `drafts` that another visitor has sent.

    All that is posted to the page is read as JSON here, whatever it says that it is; only uploads, and pictures that do not
    go to Gradio, pass unread.
    """

    def __init__(self, app: ASGIApp, drafts: Drafts | None = None):
        self.app, self.drafts = app, drafts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or is_api(scope) or is_upload(scope) or scope["path"] in BESIDE_GRADIO:
            await self.app(scope, receive, send)
            return
        body = await whole_body(receive, MAX_EVENT)
        if body is None:
            await refused(scope, 413, too_long(MAX_EVENT, "an event of the page is never that long."))(scope, receive, send)
            return
        try:
            check_event(body, hosts_of(scope), lambda name: self.drafts is not None and self.drafts.owned(name, visitor_of(scope)))
        except Refused as refusal:
            await refused(scope, 403, str(refusal))(scope, receive, send)
        except (ValueError, RecursionError):
            await refused(scope, 400, "The body of an event must be JSON, and not nested too deep.")(scope, receive, send)
        else:
            await self.app(scope, replayed(body, receive), send)


def is_upload(scope: Scope) -> bool:
    """Whether the body is read as files; by the very words that Gradio decides it by."""
    return scope["path"] in UPLOADS and Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")


class UploadLimit:
    """ASGI middleware that bounds the bytes that each network uploads to the page in an hour. clock: seconds.

    All who come through a tunnel or a proxy on this machine are one network.
    """

    def __init__(self, app: ASGIApp, limit: int = UPLOADED, clock: Callable[[], float] = time.monotonic):
        self.app, self.limit, self._clock = app, limit, clock
        self._came: dict[str, deque[tuple[float, int]]] = {}
        """By network (when, bytes), of the last hour."""

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
        """Bytes that a network may upload now."""
        begun = self._clock() - HOUR
        for name, came in list(self._came.items()):
            while came and came[0][0] <= begun:
                came.popleft()
            if not came:
                del self._came[name]
        return self.limit - sum(size for _, size in self._came.get(network, ()))


async def whole_body(receive: Receive, limit: int) -> bytes | None:
    """A request's body; None where it has more than `limit` bytes, the rest of which is read and thrown away.

    Where the client is gone meanwhile it is what had come.
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
    """A `receive` that gives the body once more, and then what comes after it."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return parts.pop() if parts else await receive()

    return replay


def hosts_of(scope: Scope) -> set[str]:
    """The names with port that a browser may know this server by, as the request tells them."""
    headers = Headers(scope=scope)
    named = [headers.get("host"), headers.get("x-forwarded-host", "").partition(",")[0].strip(),
             headers.get("origin", "").partition("://")[2]]
    return {name.lower() for name in named if name}


def check_event(body: bytes, hosts: set[str], owned: Callable[[str], bool] = lambda name: False) -> None:
    """Raise Refused where an object in the JSON, however deep and even if another one of the same name follows, names a file
    by an address, or by less than its whole path, or a draft that is not `owned`. Raises ValueError or RecursionError for what
    is no JSON.
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
    if value and value != os.path.abspath(value):  # Gradio refuses others itself, but would tell in which folder it looked
        raise Refused("An event names a file that was not uploaded to this page.")


def check_url(value: str, hosts: set[str]) -> None:
    """A picture of the page carries the address that the browser shows it from."""
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
"""What the text under a name is held against."""
