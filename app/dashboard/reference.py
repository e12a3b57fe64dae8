"""/docs: the API reference as one page made from the OpenAPI document. No script, nothing from elsewhere."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from markupsafe import Markup, escape
from starlette.responses import Response

from app.dashboard import web

router = web.router()


@router.get("/docs")
def reference(request: Request) -> Response:
    """Every route with its parameters, body and answers; open to all, like the document it is made from."""
    document = request.app.openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(path, method, operation))
    schemas: dict[str, Any] = document["components"]["schemas"]
    shapes = [_shape(name, schema) for name, schema in schemas.items()]
    return web.render(request, "reference.html", info=document["info"], groups=groups, shapes=shapes)


def _operation(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    kinds = operation.get("requestBody", {}).get("content", {})
    return {
        "method": method.upper(),
        "path": path,
        "about": operation.get("description") or operation.get("summary", ""),
        "parameters": [
            {
                "name": one["name"],
                "where": one["in"],
                "required": one.get("required", False),
                "type": _type(one.get("schema", {})),
                "about": one.get("description", ""),
            }
            for one in operation.get("parameters", [])
        ],
        "bodies": [(kind, _type(content.get("schema", {}))) for kind, content in kinds.items()],
        "answers": [
            (status, answer.get("description", "") or _named(answer))
            for status, answer in operation["responses"].items()
        ],
    }


def _named(answer: dict[str, Any]) -> str:
    return "problem" if "$ref" in answer else ""


def _shape(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    need = set(schema.get("required", []))
    members = [
        (member, member in need, _type(shape), shape.get("description", ""))
        for member, shape in schema.get("properties", {}).items()
    ]
    return {"name": name, "about": schema.get("description", ""), "members": members}


def _type(shape: dict[str, Any]) -> Markup:
    """A type in a word or two, with a link to the shape it names."""
    if "$ref" in shape:
        name = str(shape["$ref"]).rpartition("/")[2]
        return Markup('<a href="#{0}">{0}</a>').format(name)
    if "anyOf" in shape:
        return Markup(" or ").join(_type(option) for option in shape["anyOf"])
    if "enum" in shape:
        return Markup(" | ").join(Markup("<code>{}</code>").format(str(value)) for value in shape["enum"])
    if shape.get("type") == "array":
        return Markup("list of ") + _type(shape.get("items", {}))
    return escape(str(shape.get("const", shape.get("type", "any"))))
