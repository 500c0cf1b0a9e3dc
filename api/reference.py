"""/docs: the OpenAPI document as one page to read, without scripts and without anything from elsewhere."""

from html import escape
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from api.errors import COMMON

router = APIRouter(include_in_schema=False)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1f2937; }
h2 { margin-top: 2.5rem; } h3 { font: 600 1rem ui-monospace, monospace; margin: 2rem 0 .2rem; }
h3 span { display: inline-block; min-width: 3.5rem; color: #4f46e5; } h4 { margin: .8rem 0 .2rem; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; } td, th { text-align: left; vertical-align: top;
padding: .15rem .6rem .15rem 0; border-top: 1px solid #e5e7eb; }
code { font-family: ui-monospace, monospace; white-space: nowrap; }
@media (prefers-color-scheme: dark) { body { background: #111827; color: #e5e7eb; } td, th { border-color: #374151; }
h3 span, a { color: #a5b4fc; } }
"""
Schema = dict[str, Any]


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    return HTMLResponse(page(request.app.openapi()))


def page(document: Schema) -> str:
    """The document as HTML."""
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(operation_html(method, path, operation, document))
    body = "".join(f"<h2>{escape(name)}</h2>{''.join(parts)}" for name, parts in groups.items())
    title = escape(document["info"]["title"])
    common = " ".join(f"{status}: {escape(said['description'])}" for status, said in COMMON.items())
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<style>{STYLE}</style></head><body>'
            f'<h1>{title}</h1><p>{escape(document["info"].get("description", ""))} '
            f'<a href="openapi.json">openapi.json</a></p><h4>Errors of every path</h4><p>{common}</p>{body}</body></html>')


def operation_html(method: str, path: str, operation: Schema, document: Schema) -> str:
    said = escape(operation.get("description", ""))
    query = {p["name"]: p["schema"] | {"description": p.get("description", "")} for p in operation.get("parameters", [])}
    answers = operation["responses"]
    own = {status: answer["description"] for status, answer in answers.items() if status not in ("200", *map(str, COMMON))}
    others = " ".join(f"{status}: {escape(said)}" for status, said in own.items())
    return (f"<h3><span>{method.upper()}</span> {escape(path)}</h3><p>{said}</p>"
            + fields_html("Query", query)
            + fields_html("Request", properties(operation.get("requestBody"), document))
            + fields_html("Answer", properties(answers.get("200"), document))
            + (f"<h4>Errors</h4><p>{others}</p>" if others else ""))


def properties(content: Schema | None, document: Schema) -> Schema:
    """The fields of a request's or an answer's JSON, of its items where it is a list."""
    schema = (content or {}).get("content", {}).get("application/json", {}).get("schema", {})
    while schema.get("type") == "array" or "$ref" in schema:
        schema = schema["items"] if "items" in schema else document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema.get("properties", {})


def fields_html(title: str, fields: Schema) -> str:
    """A table of fields, empty where there are none."""
    rows = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind(schema))}</td><td>{escape(default(schema))}</td>"
                   f"<td>{escape(schema.get('description', ''))}</td></tr>" for name, schema in fields.items())
    head = "<tr><th>Field</th><th>Type and range</th><th>Default</th><th></th></tr>"
    return f"<h4>{title}</h4><table>{head}{rows}</table>" if rows else ""


def kind(schema: Schema) -> str:
    """Type and range in words: "integer or null, 1 to 1000"."""
    types = schema.get("anyOf", [schema])
    names = " or ".join(dict.fromkeys(part.get("type", part.get("$ref", "anything").rpartition("/")[2]) for part in types))
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum")
    above = "above" if "exclusiveMinimum" in schema else "from"
    if low is None and high is None:
        return names
    return f"{names}, {above} {low:.10g}" + (f" to {high:.10g}" if high is not None else "")


def default(schema: Schema) -> str:
    return repr(schema["default"]) if "default" in schema else ""
