"""Around every request: an id, a largest body, no strangers' pages, counters, an answer for our faults."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from threading import Lock
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import telemetry
from app.api import problems
from app.errors import Forbidden, ReprogError, TooLarge, Unusable
from app.storage import ids

log = logging.getLogger(__name__)

JSON_BYTES = 2 * 2**20
IMAGES_BYTES = 96 * 2**20  # a prediction's 32 files, an artifact
_ENVELOPE = 64 * 2**10  # multipart headers around an upload
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_ENDING = Unusable(
    "The service is stopping.",
    code="stopping",
    hint="Ask again: with the same Idempotency-Key nothing is done twice.",
)
_SECONDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


class Traffic:
    """Requests answered and how long they took, for /metrics."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.answers = Counter[tuple[str, str, int]]()  # method, route, status
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.seconds = 0.0

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self.answers[method, route, status] += 1
            self.seconds += seconds
            self.buckets[sum(seconds > bound for bound in _SECONDS)] += 1

    def exposition(self) -> list[str]:
        """Prometheus text lines."""
        with self._lock:
            answers, buckets, seconds = dict(self.answers), list(self.buckets), self.seconds
        lines = ["# TYPE reprog_http_requests_total counter"]
        for (method, route, status), n in sorted(answers.items()):
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"reprog_http_requests_total{{{labels}}} {n}")
        lines.append("# TYPE reprog_http_request_seconds histogram")
        bounds = [*map(str, _SECONDS), "+Inf"]
        for i, bound in enumerate(bounds):
            lines.append(f'reprog_http_request_seconds_bucket{{le="{bound}"}} {sum(buckets[: i + 1])}')
        return [
            *lines,
            f"reprog_http_request_seconds_sum {seconds:.6f}",
            f"reprog_http_request_seconds_count {sum(buckets)}",
        ]


class Edge:
    """ASGI middleware, outermost. `open_door`: no keys are asked for (loopback only)."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, upload_bytes: int, open_door: bool) -> None:
        self._app, self._traffic = app, traffic
        self._upload_bytes, self._open_door = upload_bytes, open_door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else ids.new("req_")
        scope.setdefault("state", {})["request_id"] = request_id
        status, started = 0, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-Id"] = request_id
                out["X-Content-Type-Options"] = "nosniff"
            await send(message)

        limit = self._limit(scope["method"], scope["path"])
        try:
            self._refuse_strangers(headers)
            _refuse_announced(headers, limit)
            with telemetry.span(scope["method"], reprog__request_id=request_id) as span:
                await self._app(scope, _counted(receive, limit), answer)
                span.update_name(f"{scope['method']} {_route(scope)}")
                span.set_attribute("http.response.status_code", status)
        except ClientDisconnect:
            log.info("request %s: the client went away", request_id)
        except asyncio.CancelledError:
            if not _closing(scope):
                raise
            if not status:
                await problems.render(scope, _ENDING)(scope, receive, answer)
        except Exception as error:
            if status:  # the answer has begun: nothing better can be said
                raise
            await problems.render(scope, _fault(scope, error, request_id))(scope, receive, answer)
        finally:
            self._traffic.count(scope["method"], _route(scope), status, time.perf_counter() - started)

    def _limit(self, method: str, path: str) -> int:
        """The largest body, bytes."""
        if method == "POST" and path.rstrip("/") in (
            "/v1/datasets",
            "/datasets",
        ):  # the second is a page's form
            return self._upload_bytes + _ENVELOPE
        images = path.startswith(("/compat/", "/customvision/")) or path.endswith(
            ("/predict", "/infer", "/artifacts/import")
        )
        return IMAGES_BYTES if images else JSON_BYTES

    def _refuse_strangers(self, headers: Mapping[str, str]) -> None:
        """A page of another site must not spend through its reader's browser, by form or by DNS rebinding."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Forbidden(f"A page of {origin} may not call this service.", code="cross_origin")
        if self._open_door and not _ours(urlsplit(f"//{host}").hostname or ""):
            raise Forbidden(
                f"Without keys the service answers on this machine's own addresses only, not as {host}.",
                code="foreign_host",
                hint="Set REPROG_AUTH=keys, or use http://127.0.0.1.",
            )


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "") or "unknown"


def _closing(scope: Scope) -> bool:
    """Whether the process is about to end: requests that are not answered in time are cancelled."""
    return scope["app"].state.services.closing.is_set()


def _ours(host: str) -> bool:
    """An address, or a name that no public DNS server can give."""
    if "." not in host or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _fault(scope: Scope, error: Exception, request_id: str) -> ReprogError:
    if isinstance(error, ReprogError):
        return error
    if isinstance(error, HTTPException):
        return problems.of_http(scope, error)
    log.exception("request %s failed", request_id)
    return ReprogError(
        "Something went wrong on our side; it is in the log.",
        hint=f"Look for {request_id} in the service's log, and try again.",
    )


def _refuse_announced(headers: Mapping[str, str], limit: int) -> None:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)


def _counted(receive: Receive, limit: int) -> Receive:
    """Raises HTTPException 413 (which body parsers let through) once more than `limit` bytes have come."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, _too_large(limit).detail)
        return message

    return counted


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The body is larger than {limit} bytes.",
        hint="Data set uploads may be as large as REPROG_MAX_UPLOAD_BYTES; send fewer images otherwise.",
    )
