"""What every operation of the OpenAPI document takes: its query parameters and the members of its body."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, cast

from app.api.openapi import dump

#: Objects that a form or an option gives as one thing.
WHOLE = ({"amount", "currency"},)
Json = dict[str, Any]


@cache
def document() -> Json:
    return cast("Json", json.loads(dump()))


def _shape(schema: Json) -> Json:
    """Without references, and without null beside one other shape."""
    while True:
        if "$ref" in schema:
            schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif len(others := [one for one in schema.get("anyOf", []) if one.get("type") != "null"]) == 1:
            schema = others[0]
        else:
            return schema


def _members(schema: Json, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, inner in _shape(schema).get("properties", {}).items():
        path, deeper = f"{prefix}{name}", _shape(inner).get("properties", {})
        if deeper and set(deeper) not in WHOLE:
            found |= _members(inner, f"{path}.")
            if _shape(inner).get("additionalProperties"):
                found.add(f"{path}.*")
        else:
            found.add(path)
    return found


@cache
def query_fields(operation: str) -> frozenset[str]:
    """Names of the query parameters of `METHOD /path`."""
    parameters = _of(operation).get("parameters", [])
    return frozenset(one["name"] for one in parameters if one["in"] == "query")


@cache
def body_fields(operation: str) -> frozenset[str]:
    """Dotted paths of the members of the body of `METHOD /path`, over all its media types."""
    content = _of(operation).get("requestBody", {}).get("content", {})
    return frozenset[str]().union(*(_members(kind.get("schema", {})) for kind in content.values()))


def operations() -> set[str]:
    """Every `METHOD /path`."""
    paths: Json = document()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def _of(operation: str) -> Json:
    method, _, path = operation.partition(" ")
    return document()["paths"][path][method.lower()]
