"""What the compatible wire formats share: keys from their own headers, errors in their own words."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from app.api import auth
from app.api.deps import Services
from app.api.problems import of_http, translate
from app.errors import BadRequest, ReprogError, Unauthorised

MOST_IMAGES = 128
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
JSON: dict[str, Any] = {"schema": {"type": "object"}}


async def admit(request: Request, wired: Services, key: str) -> None:
    """Let the holder of `key` in where it may predict. Raises Unauthorised, Forbidden, RateLimited."""
    if wired.settings.auth == "off":
        return
    found = await auth.recognise(request, wired, key) if key else None
    if found is None:
        raise Unauthorised("The key is missing, unknown or revoked.", hint="Ask for one: POST /v1/keys.")
    auth.demand(found, "predict")


def authorization(request: Request, *schemes: str) -> str:
    """The key of `Authorization: SCHEME key`, or ""."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() in schemes else ""


def speaking(word: Callable[[Request, ReprogError], Response]) -> type[APIRoute]:
    """Routes whose errors are worded by `word`."""

    class Dialect(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            plain = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await plain(request)
                except ReprogError as error:
                    return word(request, error)
                except RequestValidationError as error:
                    return word(request, translate(error.errors(), request.headers.get("content-type", "")))
                except HTTPException as error:
                    return word(request, of_http(request.scope, error))

            return handle

    return Dialect


def waiting(error: ReprogError) -> dict[str, str]:
    """Retry-After, where the error says for how long."""
    seconds: float | None = getattr(error, "retry_after", None)
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}


def said(error: ReprogError) -> str:
    return f"{error.detail} {error.hint}" if error.hint else error.detail


def from_base64(text: str, param: str) -> bytes:
    """Standard base64. Raises BadRequest."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{param} is not base64.", code="invalid_base64", param=param) from error
    if not data:
        raise BadRequest(f"{param} is empty.", code="empty_body", param=param)
    return data


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a router: errors in the format's own JSON, beside those any route may answer with."""
    return {
        status: {"description": "In the format's own words.", "content": {"application/json": JSON}}
        for status in sorted({*statuses, 401, 403, 404, 405, 422, 500})
    }


def body(**kinds: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra=` of a route that reads its body itself; `octet` and `json` are short names."""
    names = {"octet": "application/octet-stream", "json": "application/json", "form": "multipart/form-data"}
    return {
        "requestBody": {"required": True, "content": {names[kind]: schema for kind, schema in kinds.items()}}
    }
