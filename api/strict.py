"""Reads a request's JSON strictly: without Python's NaN and Infinity, which no answer could repeat."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


MAX_DEPTH = 64
"""Nesting of lists and objects."""


def refuse(text: str) -> float:
    raise json.JSONDecodeError(f"{text[:40]} is not a JSON number", text, 0)


def finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else refuse(text)


def check_depth(value: Any) -> None:
    """Raise HTTPException for lists and objects nested too deeply to process."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level if isinstance(one, (list, dict))
                 for inner in (one.values() if isinstance(one, dict) else one) if isinstance(inner, (list, dict))]
        if not level:
            return
    raise HTTPException(422, f"The body's lists and objects may be nested at most {MAX_DEPTH} deep.")


class StrictRequest(Request):
    """A request whose body is kept only as parsed JSON, and only until forget()."""

    _text: bytes | None = None
    _value: Any = None

    async def body(self) -> bytes:
        """A placeholder that says whether there is a body: FastAPI would keep the real bytes for the whole request."""
        if self._text is None:
            self._text = b"".join([part async for part in self.stream()])
        return b"\0" if self._text else b""

    async def json(self) -> Any:
        await self.body()
        text, self._text = self._text, b""
        self._value = json.loads(text or b"", parse_constant=refuse, parse_float=finite)
        check_depth(self._value)
        return self._value

    def forget(self) -> None:
        """Drop the parsed JSON once it has been used."""
        if isinstance(self._value, (dict, list)):
            self._value.clear()


class StrictRoute(APIRoute):
    """A route whose handler gets a StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly
