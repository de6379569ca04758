"""What the OpenAPI page says of routes that read and write by themselves, and the page as a plain list."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from headstart.server import reading, schemas
from headstart.server.problems import words

PROBLEM = "application/problem+json"
QUERY = ("top", "why", "unknown", "key")  # fields of a prediction that may stand behind a question mark
ALWAYS = (400, 401, 403, 421, 429, 503)  # what any route but health may be refused with
HEADERS = "The header X-Timeout-Ms (1 to 3,600,000) sets the deadline of this request; X-Request-Key stands for the field `key`."
ASKING = (404, 413, 415, 422, 504)
CHANGING = (404, 409, 413, 415, 422)

_REFUSALS = {
    400: "It is no HTTP, JSON or form that can be read.",
    401: "No API key came, or one that is not known.",
    403: "The API key may not do this, or a page of another origin asks.",
    404: "There is no such thing here.",
    409: "Somebody changed it meanwhile, or it says something else already.",
    413: "More than is taken at once.",
    415: "A kind of body that is not read.",
    421: "The server does not answer to this host name.",
    422: "It can be read, but not used; the detail names the field or the place.",
    429: "Too much to do: come again after Retry-After seconds.",
    503: "The server stops, or what is needed cannot be had at present.",
    504: "Not answered before the deadline (X-Timeout-Ms).",
}
_PLACES = {
    "name": {"description": "a name that is served", "schema": {"type": "string", "minLength": 1, "maxLength": 64}},
    "id": {"description": "of a prediction", "schema": {"type": "string", "minLength": 1, "maxLength": 200}},
}
_EXAMPLES: Mapping[str, Any] = {
    "predict": {"inputs": ["The parcel never came.", "How do I change my address?"], "top": 2},
    "predict_many": {"inputs": "The parcel never came.", "models": ["tickets", "mood"]},
    "feedback": {"id": "019abcdef0123456789abcdef01-0.0", "label": "refund"},
    "deploy": {"model": "tickets", "version": "v2", "as": "tickets", "canary": 0.1},
    "change": {"expected": 7},
}


def ref(schema: type[BaseModel]) -> dict[str, str]:
    """Where a schema stands on the page."""
    return {"$ref": f"#/components/schemas/{schema.__name__}"}


def answers(status: int, schema: type[BaseModel], *refused: int, lines: bool = False, open: bool = False) -> Any:
    """The `responses` of a route: what it gives, and with what it may refuse."""
    content: dict[str, Any] = {reading.JSON: {"schema": ref(schema)}}
    if lines:
        content[reading.LINES] = {"schema": {"type": "string", "description": "a prediction a line, or {error, line}"}}
    found: dict[int, Any] = {status: {"description": words(status), "content": content}}
    if status == 201:
        found[201]["headers"] = {"Location": {"schema": {"type": "string"}, "description": "where it can be seen"}}
    for code in sorted({*(() if open else ALWAYS), *refused}):
        found[code] = {"description": _REFUSALS[code], "content": {PROBLEM: {"schema": ref(schemas.Problem)}}}
        if code in (429, 503):
            found[code]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return found


def asks(
    schema: type[BaseModel] | None = None,
    example: str = "",
    *,
    path: tuple[str, ...] = (),
    form: bool = False,
    lines: bool = False,
    optional: bool = False,
) -> dict[str, Any]:
    """The `openapi_extra` of a route: its parameters and its body."""
    found: dict[str, Any] = {}
    parameters = [{"name": name, "in": "path", "required": True, **_PLACES[name]} for name in path]
    if form:
        parameters += _query()
        found["description"] = HEADERS
    if parameters:
        found["parameters"] = parameters
    if schema is not None:
        content: dict[str, Any] = {reading.JSON: {"schema": ref(schema), "example": _EXAMPLES[example]}}
        if form:
            content[reading.FORM] = {"schema": _form(schema)}
        if lines:
            said = 'an input a line: "The parcel never came." or {"input": "How do I change my address?"}'
            content[reading.LINES] = {"schema": {"type": "string", "description": said}}
        found["requestBody"] = {"required": not optional, "content": content}
    return found


def _query() -> list[dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {
        "top": {"type": "integer", "minimum": 0, "maximum": schemas.TOP},
        "why": {"type": "boolean"},
        "unknown": {"type": "boolean"},
        "key": {"type": "string", "maxLength": 256},
    }
    said = "as the field of the body, which comes first"
    return [
        {"name": name, "in": "query", "required": False, "description": said, "schema": kinds[name]} for name in QUERY
    ]


def _form(schema: type[BaseModel]) -> dict[str, Any]:
    """A form with files."""
    fields: dict[str, Any] = {
        "inputs": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}},
        "top": {"type": "integer", "minimum": 0, "maximum": schemas.TOP},
        "why": {"type": "boolean"},
        "unknown": {"type": "boolean"},
        "key": {"type": "string", "maxLength": 256},
    }
    if "models" in schema.model_fields:
        fields["models"] = {"type": "array", "items": {"type": "string"}}
    return {"type": "object", "required": ["inputs"], "additionalProperties": False, "properties": fields}


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI page of an application, with our schemas and how to show a key."""
    page: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    _, found = models_json_schema(
        [(one, "validation") for one in schemas.ALL], ref_template="#/components/schemas/{model}"
    )
    parts = page.setdefault("components", {})
    parts.setdefault("schemas", {}).update(found["$defs"])
    parts["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "hs_..., made by: headstart keys create NAME"}
    }
    for path, operations in page["paths"].items():
        for operation in operations.values():
            if "/health/" not in path:
                operation.setdefault("security", [{"key": []}, {}])
    return page


def listed(page: Mapping[str, Any]) -> str:
    """The operations of an OpenAPI page as HTML: no script, nothing from elsewhere."""
    rows = []
    for path, operations in page["paths"].items():
        for method, operation in operations.items():
            said = ", ".join(str(code) for code in operation["responses"])
            cells = (f"{method.upper()} {path}", operation.get("summary", ""), said)
            first, *others = (html.escape(cell) for cell in cells)
            rows.append(f"<tr><td><code>{first}</code></td>" + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>")
    title = html.escape(f"{page['info']['title']} {page['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font:1rem/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "td{padding:.25rem .75rem .25rem 0;vertical-align:top}td:last-child{color:#555}</style>"
        f"<h1>{title}</h1><p>{html.escape(page['info'].get('description', ''))} The whole of it: "
        '<a href="openapi.json">openapi.json</a></p>'
        f"<table>{''.join(rows)}</table></html>"
    )
