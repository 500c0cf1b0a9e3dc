"""Errors in A1111's form, with the same sentences as the page."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from pipeline.errors import Cancelled, InvalidRequest, ModelError, PalimpsestError, TooMany
from pipeline.job import sentence_on
from pipeline.memory import is_out_of_memory

PYDANTIC_1 = {  # A1111's messages for the most common client errors
    "int_parsing": ("value is not a valid integer", "type_error.integer"),
    "int_type": ("value is not a valid integer", "type_error.integer"),
    "float_parsing": ("value is not a valid float", "type_error.float"),
    "float_type": ("value is not a valid float", "type_error.float"),
    "bool_parsing": ("value could not be parsed to a boolean", "type_error.bool"),
    "bool_type": ("value could not be parsed to a boolean", "type_error.bool"),
    "list_type": ("value is not a valid list", "type_error.list"),
    "dict_type": ("value is not a valid dict", "type_error.dict"),
    "model_attributes_type": ("value is not a valid dict", "type_error.dict"),
    "string_type": ("str type expected", "type_error.str"),
    "missing": ("field required", "value_error.missing"),
}


def told(description: str, *models: str) -> dict[str, Any]:
    """An answer for the OpenAPI document, naming models that some route must include; faster than passing the models."""
    refs = [{"$ref": f"#/components/schemas/{model}"} for model in models or ("ErrorAnswer",)]
    return {"description": description, "content": {"application/json": {"schema": {"anyOf": refs} if models else refs[0]}}}


COMMON: dict[int | str, dict[str, Any]] = {
    400: told("The body cannot be read."),
    401: told("A login is missing or wrong."),
    403: told("It comes from another site, names another host on a server without logins, or is not for visitors."),
    408: told("The body did not arrive in time."),
    413: told("The body is too large."),
    422: told("A value is not valid, a model cannot be used, or the body does not match the schema.", "ErrorAnswer", "InvalidBody"),
    500: told("An internal error."),
    503: told("Too much data is being received already."),
}
"""Answers that any route may give, for the OpenAPI document."""


STATUS = {InvalidRequest: 422, ModelError: 422, Cancelled: 409, TooMany: 429}


class Json(JSONResponse):
    """JSON in ASCII, so that lone surrogates cannot break an answer."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_answer(error: Exception) -> tuple[int, dict[str, str]]:
    """(status, body) for an error from a job or handler."""
    if isinstance(error, HTTPException):
        return error.status_code, {"error": "HTTPException", "detail": str(error.detail), "body": "", "errors": ""}
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
    kind = "OutOfMemoryError" if is_out_of_memory(error) else getattr(error, "kind", type(error).__name__)
    sentence = sentence_on(error)
    return status, {"error": kind, "detail": sentence, "body": "", "errors": sentence}


def refused(error: PalimpsestError, status: int | None = None) -> Json:
    """The answer of a route outside of the API's schema; `detail` is the error's own sentence."""
    usual, body = error_answer(error)
    return Json(body | {"detail": str(error)}, status or usual)


async def answer_error(request: Request, error: Exception) -> Json:
    status, body = error_answer(error)
    return Json(body, status, headers=getattr(error, "headers", None))


async def answer_invalid(request: Request, error: RequestValidationError) -> Json:
    """For a body or query that does not match the schema. Its content is not repeated: it may be long or not JSON."""
    return Json({"detail": [invalid_field(found) for found in error.errors()]}, 422)


def invalid_field(found: dict[str, Any]) -> dict[str, Any]:
    message, kind = PYDANTIC_1.get(found["type"], (found["msg"], found["type"]))
    return {"loc": list(found["loc"]), "msg": message, "type": kind}


def handle_errors(app: FastAPI) -> None:
    """Handle every error of the application's own routes; the server also logs unexpected ones."""
    for kind in (HTTPException, PalimpsestError, Cancelled, Exception):
        app.add_exception_handler(kind, answer_error)
    app.add_exception_handler(RequestValidationError, answer_invalid)
