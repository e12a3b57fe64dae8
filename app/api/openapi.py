"""The OpenAPI document: made from the routes, kept in docs/openapi.json, compared in `make check`."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import MEDIA_TYPE, Problem
from app.api.schemas.endpoints import PredictBody

_PARAMETER = re.compile(r"{([a-z_]+)(?::[a-z]+)?}")
_TEMPLATE = "#/components/schemas/{model}"


def document(app: FastAPI) -> dict[str, Any]:
    """The document of `app`, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas: dict[str, Any] = made["components"]["schemas"]
        for model in (Problem, PredictBody):
            schema = model.model_json_schema(ref_template=_TEMPLATE)
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        made["components"] |= {"schemas": dict(sorted(schemas.items())), "responses": _share_problems(made)}
        _name_path_parameters(made)
        app.openapi_schema = made
    return app.openapi_schema


def _name_path_parameters(made: dict[str, Any]) -> None:
    """Parts of a path that its function does not look at (a version, a user) are parameters all the same."""
    for path, methods in made["paths"].items():
        for operation in methods.values():
            given: list[dict[str, Any]] = operation.setdefault("parameters", [])
            known = {one["name"] for one in given if one["in"] == "path"}
            for name in _PARAMETER.findall(path):
                if name not in known:
                    schema = {"type": "string", "title": name.capitalize()}
                    given.append({"name": name, "in": "path", "required": True, "schema": schema})


def _share_problems(made: dict[str, Any]) -> dict[str, Any]:
    """Problems are declared on every route; here each is written once and referred to."""
    shared: dict[str, Any] = {}
    for operation in (operation for methods in made["paths"].values() for operation in methods.values()):
        for status, answer in operation["responses"].items():
            if MEDIA_TYPE in answer.get("content", {}):
                shared[f"Problem{status}"] = answer
                operation["responses"][status] = {"$ref": f"#/components/responses/Problem{status}"}
    return dict(sorted(shared.items()))


def dump() -> str:
    """The document as text, ready for docs/openapi.json."""
    from app.api.application import bare_app

    return json.dumps(document(bare_app()), indent=2, ensure_ascii=False) + "\n"
