"""Replies that Starlette has no class for: fast JSON, and the broken ones."""

import email.utils
import socket
import struct
from asyncio import Transport
from datetime import UTC, datetime, timedelta
from typing import cast

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.sandbox.faults import RetryAfterStyle

TRANSPORT = "sandbox.transport"
A_DAY = 86_400


def json_reply(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response of plain Python values."""
    return Response(orjson.dumps(content), status, headers, "application/json")


def html_reply(status: int) -> Response:
    """What a gateway in front of the service says when the service does not."""
    title = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable"}.get(status, f"{status}")
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
    return Response(page, status, media_type="text/html")


def wrong_json(kind: int) -> Response:
    """A 200 whose body is not what the format promises; `kind` 0..2."""
    bodies: list[object] = [{"status": {"code": 10000}, "results": []}, [], {"predictions": "none"}]
    return json_reply(bodies[kind])


def retry_headers(style: RetryAfterStyle) -> dict[str, str]:
    """The Retry-After header of a refusal: one second, as a number or a date; none; or a whole day."""
    if style == "seconds":
        return {"Retry-After": "1"}
    if style == "huge":
        return {"Retry-After": str(A_DAY)}
    if style == "date":
        # Dates have whole seconds: two ahead is never less than one away.
        return {
            "Retry-After": email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        }
    return {}


class ResetReply(Response):
    """No reply: the connection is reset. Without a socket to reset, ConnectionResetError is raised."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = _transport(scope)
        if transport is None:
            raise ConnectionResetError("the sandbox dropped this request")
        held = cast("socket.socket | None", transport.get_extra_info("socket"))
        if held is not None:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        await _gone(receive)


class TruncatedReply(Response):
    """The first half of a body whose length the headers promise in full; then the connection ends."""

    def __init__(self, whole: bytes, status: int) -> None:
        super().__init__(whole, status, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        transport = _transport(scope)
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": transport is not None})
        if transport is not None:
            transport.close()
            await _gone(receive)


def _transport(scope: Scope) -> Transport | None:
    extensions = cast(dict[str, object], scope.get("extensions") or {})
    return cast(Transport | None, extensions.get(TRANSPORT))


async def _gone(receive: Receive) -> None:
    """Wait until the server has noticed that the connection is closed, or it would report a missing reply."""
    while (await receive())["type"] != "http.disconnect":
        pass
