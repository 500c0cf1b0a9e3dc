"""/openapi.json, and /docs: the same as one readable page, without scripts or external files."""

import json
from collections.abc import Callable
from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from api.errors import COMMON, Json

router = APIRouter(include_in_schema=False)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }
h2 { margin-top: 2.5rem; } h3 { font: 600 1rem ui-monospace, monospace; margin: 2rem 0 .2rem; }
h3 span { display: inline-block; min-width: 3.5rem; color: #4f46e5; } h4 { margin: .8rem 0 .2rem; font-size: .85rem; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; font-size: .87rem; } td, th { text-align: left;
vertical-align: top; padding: .15rem .6rem .15rem 0; border-top: 1px solid #e5e7eb; overflow-wrap: anywhere; }
th { width: 24%; } th:nth-child(3) { width: 12%; } th:last-child { width: auto; }
code { font-family: ui-monospace, monospace; } ul { columns: 3 16rem; padding-left: 1.2rem; }
@media (prefers-color-scheme: dark) { body { background: #111827; color: #e5e7eb; } td, th { border-color: #374151; }
h3 span, a { color: #a5b4fc; } }
"""
Schema = dict[str, Any]


# both in a thread, as generating the document takes a second

@router.get("/openapi.json")
def openapi(request: Request) -> Json:
    return Json(request.app.openapi())


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    return HTMLResponse(page(request.app.openapi()))


def page(document: Schema) -> str:
    """The document as HTML."""
    groups: dict[str, list[str]] = {}
    contents = ""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(operation_html(method, path, operation, document))
            contents += f'<li><a href="#{operation["operationId"]}">{method.upper()} {escape(path)}</a></li>'
    body = "".join(f"<h2>{escape(name.capitalize())}</h2>{''.join(parts)}" for name, parts in groups.items())
    title = escape(document["info"]["title"])
    common = " ".join(f"{status}: {escape(said['description'])}" for status, said in COMMON.items())
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<style>{STYLE}</style></head><body>'
            f'<h1>{title}</h1><p>{escape(document["info"].get("description", ""))} '
            f'<a href="openapi.json">openapi.json</a></p><ul>{contents}</ul>'
            f'<h4>Errors of every path</h4><p>{common}</p>{body}</body></html>')


def operation_html(method: str, path: str, operation: Schema, document: Schema) -> str:
    said = escape(operation.get("description", ""))
    query = {p["name"]: p["schema"] | {"description": p.get("description", "")} for p in operation.get("parameters", [])}
    answers = operation["responses"]
    own = {status: answer["description"] for status, answer in answers.items() if status not in ("200", *map(str, COMMON))}
    others = " ".join(f"{status}: {escape(said)}" for status, said in own.items())
    return (f'<h3 id="{operation["operationId"]}"><span>{method.upper()}</span> {escape(path)}</h3><p>{said}</p>'
            + fields_html("Query", query, default_of)
            + fields_html("Request", properties(operation.get("requestBody"), document), default_of)
            + fields_html("Answer", properties(answers.get("200"), document))
            + (f"<h4>Errors</h4><p>{others}</p>" if others else ""))


def properties(content: Schema | None, document: Schema) -> Schema:
    """The fields of a request's or answer's JSON, or of its items if it is a list."""
    schema = (content or {}).get("content", {}).get("application/json", {}).get("schema", {})
    while schema.get("type") == "array" or "$ref" in schema:
        schema = schema["items"] if "items" in schema else document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema.get("properties", {})


def fields_html(title: str, fields: Schema, default: Callable[[Schema], str] | None = None) -> str:
    """A table of fields, with defaults for optional ones; empty if there are none."""
    rows = ""
    for name, schema in fields.items():
        may_be_left_out = "" if default is None else f"<td><code>{escape(default(schema))}</code></td>"
        rows += (f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind(schema))}</td>{may_be_left_out}"
                 f"<td>{escape(schema.get('description', ''))}</td></tr>")
    head = f"<tr><th>Field</th><th>Type and range</th>{'' if default is None else '<th>Default</th>'}<th></th></tr>"
    return f"<h4>{title}</h4><table>{head}{rows}</table>" if rows else ""


def kind(schema: Schema) -> str:
    """Type and range in words: "integer or null, from 1 to 1000"."""
    names = " or ".join(dict.fromkeys(map(type_name, schema.get("anyOf", [schema]))))
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    above = "above" if "exclusiveMinimum" in schema else "from"
    if low is None:
        return names
    return f"{names}, {above} {number(low)}" + ("" if high is None else f" to {number(high)}")


def type_name(schema: Schema) -> str:
    if schema.get("type") == "array" and schema.get("items"):
        return f"array of {kind(schema['items'])}"
    return schema.get("type", schema.get("$ref", "anything").rpartition("/")[2])


def number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def default_of(schema: Schema) -> str:
    """As JSON; empty if the field is required."""
    optional = "default" in schema or {"type": "null"} in schema.get("anyOf", ())
    return json.dumps(schema.get("default")) if optional else ""
