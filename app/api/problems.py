"""Every error leaves as an RFC 9457 problem document, made here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.errors import BadRequest, ReprogError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_CODES = {400: "invalid_request", 404: "no_such_route", 405: "method_not_allowed", 413: "too_large"}
_HINTS = {404: "See /docs for every route.", 405: "See the Allow header, or /docs."}
_PREFIXES = ("body", "query", "path", "header", "cookie")


class Problem(BaseModel):
    """RFC 9457, with a stable `code`, the parameter that is wrong and a hint that says what would work."""

    type: str = Field(examples=["urn:reprog:problem:budget_too_small"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The limits allow 100 queries; one pass and the final test need 1080."])
    instance: str = Field(examples=["/v1/jobs"])
    code: str = Field(examples=["budget_too_small"])
    param: str | None = Field(examples=["limits.max_queries"])
    hint: str | None = Field(examples=["Allow at least 1080 queries."])
    request_id: str = Field(examples=["req_01k9w3v0q2x8f6m4t7c1n5b9za"])


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a router: the problems it may answer with, beside those any route may."""
    return {status: _declaration(status) for status in sorted({*statuses, *EVERYWHERE})}


#: Unknown routes, methods and parameters, keys, bodies, our own faults and a database that is away.
EVERYWHERE = (401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503)


def _declaration(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}


def render(
    scope: Mapping[str, Any], error: ReprogError, headers: Mapping[str, str] | None = None
) -> Response:
    """The problem document of `error` for the request in `scope`."""
    status = error.status
    document = {
        "type": f"urn:reprog:problem:{error.code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.detail,
        "instance": str(scope.get("path", "")),
        "code": error.code,
        "param": error.param,
        "hint": error.hint,
        "request_id": scope.get("state", {}).get("request_id", ""),
    }
    extra = dict(headers or {})
    retry_after: float | None = getattr(error, "retry_after", None)
    if retry_after is not None:
        extra["Retry-After"] = str(max(1, round(retry_after)))
    if status == HTTPStatus.UNAUTHORIZED:
        extra["WWW-Authenticate"] = 'Bearer realm="reprog"'
    return Response(_json(document), status, extra, MEDIA_TYPE)


def _json(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # a lone surrogate out of the request
        clean = {
            k: v.encode(errors="replace").decode() if isinstance(v, str) else v for k, v in document.items()
        }
        return orjson.dumps(clean)


def install(app: FastAPI) -> None:
    """Put the handlers on the application."""
    app.add_exception_handler(ReprogError, _deliberate)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UnicodeError, _text)
    app.add_exception_handler(DataError, _text)


def _deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReprogError)
    if error.status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error.detail)
    return render(request.scope, error)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "GET")
    return render(request.scope, of_http(request.scope, error), headers)


def _methods(request: Request) -> list[str]:
    """What the path of a request does allow, over all its routes."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    matching = [methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path)]
    exact = paths.get(request.url.path)  # /v1/jobs/quote is no job called "quote"
    return sorted({method.upper() for methods in ([exact] if exact else matching) for method in methods})


def of_http(scope: Mapping[str, Any], error: HTTPException) -> ReprogError:
    """The framework's own refusals: no such route or method, an unreadable or too large body."""
    problem = ReprogError(
        f"{scope['method']} {scope['path']}: {error.detail.rstrip('.')}.",
        code=_CODES.get(error.status_code, HTTPStatus(error.status_code).name.lower()),
        hint=_HINTS.get(error.status_code),
    )
    problem.status = 422 if error.status_code == 400 else error.status_code  # 400: an unreadable body
    return problem


def storable(body: BaseModel) -> None:
    """Raises BadRequest `invalid_text` for what one of our databases, or JSON itself, could not give back."""
    try:
        if b"\\u0000" not in orjson.dumps(body.model_dump(mode="python"), default=str):
            return
    except (orjson.JSONEncodeError, UnicodeError):
        pass
    raise _unstorable()


def _unstorable() -> BadRequest:
    return BadRequest(
        "The request holds text or a number that cannot be stored.",
        code="invalid_text",
        hint="Leave out NUL characters, lone surrogates and numbers beyond 64 bits.",
    )


def _text(request: Request, _: Exception) -> Response:
    return render(request.scope, _unstorable())


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return render(request.scope, translate(error.errors(), request.headers.get("content-type", "")))


def translate(found: Sequence[Any], content_type: str = "application/json") -> ReprogError:
    """Validation errors as one problem: the first decides `param`; more are counted."""
    first: Mapping[str, Any] = found[0]
    where = list(first["loc"])
    if where and where[0] == "body" and "json" not in content_type and content_type:
        problem = BadRequest(
            f"The body is {content_type.split(';')[0]}, not JSON.",
            code="unsupported_type",
            hint="Send it with Content-Type: application/json.",
        )
        problem.status = 415
        return problem
    param = ".".join(str(part) for part in (where[1:] if where and where[0] in _PREFIXES else where))
    kind, said = str(first["type"]), str(first["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return BadRequest(
            f"The body is not JSON: {said}.", code="invalid_json", hint="Check the JSON syntax."
        )
    code, hint = _KINDS.get(kind, ("invalid_request", None))
    more = f" ({len(found) - 1} more like it.)" if len(found) > 1 else ""
    name = param or "The body"
    return BadRequest(f"{name}: {said}.{more}", code=code, param=param or None, hint=hint or _hint(first))


_KINDS = {
    "extra_forbidden": ("unknown_field", "Leave it out; see /docs for the members."),
    "missing": ("missing_field", "It is required; see /docs for the members."),
    "price_unknown": ("price_unknown", "Give what one thousand queries cost; 0 is allowed."),
}


def _hint(error: Mapping[str, Any]) -> str:
    """What would work, from the limits in the error."""
    context: Mapping[str, Any] = error.get("ctx") or {}
    limits = {name: value for name, value in context.items() if name != "error"}
    if limits:
        return (
            "Allowed: "
            + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in limits.items())
            + "."
        )
    return "See /docs for what is allowed."
