"""Reading a request's JSON as JSON: without Python's NaN and Infinity, which no answer could repeat."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response


def refuse(text: str) -> float:
    raise json.JSONDecodeError(f"{text[:40]} is no JSON number", text, 0)


def finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else refuse(text)


class StrictRequest(Request):
    async def json(self) -> Any:
        return json.loads(await self.body(), parse_constant=refuse, parse_float=finite)


class StrictRoute(APIRoute):
    """A route whose handler gets a StrictRequest."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly
