"""/docs: the API reference as one page made from the OpenAPI document. No script, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

_STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:0.9em ui-monospace,monospace}pre{overflow:auto;padding:.5rem;border:1px solid #8886}
summary{cursor:pointer;padding:.3rem 0}b{display:inline-block;min-width:4.5rem}table{border-collapse:collapse}
td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}details{border-bottom:1px solid #8884}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=HTMLResponse)
def reference(request: Request) -> HTMLResponse:
    """Every route with its parameters, body and answers."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


def page(document: dict[str, Any]) -> str:
    schemas: dict[str, Any] = document["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(path, method, operation))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(rows)}" for tag, rows in groups.items()]
    shapes = "".join(_schema(name, schema) for name, schema in schemas.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{escape(document['info']['title'])} API</title><style>{_STYLE}</style><main>"
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"
        f"<p>{escape(document['info'].get('description', ''))} Machine-readable: "
        f'<a href="/openapi.json">openapi.json</a>.</p>{"".join(parts)}<h2>shapes</h2>{shapes}</main></html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(_parameter(parameter) for parameter in operation.get("parameters", []))
    table = f"<table>{rows}</table>" if rows else ""
    kinds = operation.get("requestBody", {}).get("content", {})
    body = "".join(
        f"<p>Body <code>{escape(kind)}</code> {_type(c.get('schema', {}))}</p>" for kind, c in kinds.items()
    )
    answers = ", ".join(
        f"{escape(status)} {escape(answer.get('description', ''))}".strip()
        for status, answer in operation["responses"].items()
    )
    return (
        f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code></summary>"
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>{table}{body}"
        f"<p>Answers: {answers}</p></details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    need = "required" if parameter.get("required") else "optional"
    return (
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(parameter['in'])}, {need}</td>"
        f"<td>{_type(parameter.get('schema', {}))} {escape(parameter.get('description', ''))}</td></tr>"
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    need = set(schema.get("required", []))
    rows = "".join(
        f"<tr><td><code>{escape(member)}</code></td><td>{'required' if member in need else ''}</td>"
        f"<td>{_type(shape)} {escape(shape.get('description', ''))}</td></tr>"
        for member, shape in schema.get("properties", {}).items()
    )
    about = escape(schema.get("description", ""))
    return (
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<p>{about}</p><table>{rows}</table></details>"
    )


def _type(shape: dict[str, Any]) -> str:
    """A type in a word or two, with a link to the shape it names."""
    if "$ref" in shape:
        name = escape(shape["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in shape:
        return " or ".join(_type(option) for option in shape["anyOf"])
    if "enum" in shape:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in shape["enum"])
    if shape.get("type") == "array":
        return f"list of {_type(shape.get('items', {}))}"
    return escape(str(shape.get("const", shape.get("type", "any"))))
