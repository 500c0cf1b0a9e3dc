"""Limits on the size of request bodies, each and in total."""

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.guard import BESIDE_GRADIO, is_api, refused

STALL = 60.0
"""Seconds to wait for a body's next part."""
UPLOADS = ("/gradio_api/upload", "/gradio_api/component_server")
"""Multipart uploads, which Gradio streams to disk."""


class BodyLimit:
    """ASGI middleware that limits the bytes of request bodies, except uploads.

    An API request or picture of more than `limit` bytes gets 413; one that brings the total of all requests above `in_all`
    gets 503; one whose next part takes longer than `stall` seconds gets 408. A refused body is still read to its end, as
    many clients do not read an answer before they have sent everything.

    A body counts until its request ends, minus what let_go() reports.
    """

    def __init__(self, app: ASGIApp, limit: int, in_all: int, stall: float = STALL):
        self.app, self.limit, self.in_all, self.stall = app, limit, max(limit, in_all), stall
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UPLOADS:
            await self.app(scope, receive, send)
            return
        limit = self.limit if is_api(scope) or scope["path"] in BESIDE_GRADIO else self.in_all
        size = counted = 0
        whole = answered = False
        refusal: Response | None = None

        async def receive_bounded() -> Message:
            nonlocal size, counted, whole, refusal
            if whole:
                return await receive()
            if refusal is not None:
                return {"type": "http.disconnect"}
            message: Message = {"type": "http.disconnect"}
            try:
                async with asyncio.timeout(self.stall):
                    message = await receive()
            except TimeoutError:
                refusal = refused(scope, 408, f"No part of the request's body arrived for {self.stall:g} seconds.")
                return message
            came = len(message.get("body", b""))
            size, whole = size + came, not message.get("more_body", False)
            if size > limit:
                refusal = refused(scope, 413, too_long(limit, "send fewer or smaller pictures."))
            elif self._in_flight + came > self.in_all:
                refusal = refused(scope, 503, f"Requests of {self.in_all >> 20} MiB together are being read already; try again later.",
                                  {"Retry-After": "5"})
            if refusal is not None:
                return {"type": "http.disconnect"}  # so that its data is freed before the rest is discarded
            counted += came
            self._in_flight += came
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal answered
            if refusal is None:
                answered = True
                await send(message)

        def release(size: int) -> None:
            nonlocal counted
            size = min(size, counted)
            counted -= size
            self._in_flight -= size

        scope.setdefault("state", {})["let_go"] = release
        try:
            await self.app(scope, receive_bounded, send_unless_refused)
        except ClientDisconnect:
            if refusal is None:
                raise
        finally:
            release(counted)
        if refusal is not None and not answered:
            await throw_away(receive, whole, self.stall)
            await refusal(scope, receive, send)


def let_go(scope: Scope, size: int) -> None:
    """Report that `size` bytes of a request's body are no longer in memory."""
    scope["state"]["let_go"](size)


def too_long(limit: int, advice: str) -> str:
    return f"The request's body is larger than {limit >> 20} MiB; {advice}"


async def throw_away(receive: Receive, whole: bool, stall: float) -> None:
    """Read a body to its end and discard it, unless it stalls."""
    with suppress(TimeoutError):
        while not whole:
            async with asyncio.timeout(stall):
                message = await receive()
            whole = message["type"] != "http.request" or not message.get("more_body", False)
