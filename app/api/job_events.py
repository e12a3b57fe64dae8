"""/v1/jobs/{id}/events: what happened, as a list and as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import Limit, Number, page
from app.api.problems import declared
from app.api.schemas.base import Page
from app.api.schemas.jobs import EventView
from app.errors import BadRequest

_LOOK_EVERY = 0.5  # seconds
_BEAT_EVERY = 15.0  # a comment line keeps proxies from closing a quiet stream
_BATCH = 100

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=declared())


@router.get("/{job_id}/events", response_model=Page[EventView], dependencies=[auth.needs("read")])
def list_events(job_id: str, wired: Wired, limit: Limit = 20, after: Number = 0) -> dict[str, Any]:
    """Oldest first, numbered without a gap."""
    return page(wired.jobs.events(job_id, after, limit + 1), limit, views.event, lambda event: event.seq)


@router.get(
    "/{job_id}/events/stream",
    response_class=StreamingResponse,
    dependencies=[auth.needs("read")],
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "description": "Events; `job` messages carry the progress.",
        },
        204: {"description": "The job is over and every event was delivered: do not come back."},
    },
)
async def stream_events(
    job_id: str,
    wired: Wired,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=80)] = None,
) -> Response:
    """Server-sent events from `Last-Event-ID` (or `after`) on; the stream ends with the job (and with
    the service: come back, and nothing is missed)."""
    seen = after if last_event_id is None else _number(last_event_id)
    record = await asyncio.to_thread(wired.jobs.get, job_id)
    if record.over and not await asyncio.to_thread(wired.jobs.events, job_id, seen, 1):
        return Response(status_code=204)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(wired, job_id, seen), 200, headers, "text/event-stream")


def _number(given: str) -> int:
    """The number in a Last-Event-ID: as the stream sent it, or the event's own id. Raises BadRequest."""
    number = given.strip().rpartition("_")[2]
    if not number.isdecimal() or not number.isascii() or len(number) > 15:
        raise BadRequest(
            f"Last-Event-ID {given!r} is no event of a job.",
            param="Last-Event-ID",
            hint="Send the id of the last event received, or leave the header out.",
        )
    return int(number)


async def _stream(wired: Services, job_id: str, seen: int) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    revision, spoke = -1, time.monotonic()
    while True:
        record = await asyncio.to_thread(wired.jobs.get, job_id)  # before the events: none comes after `over`
        events = await asyncio.to_thread(wired.jobs.events, job_id, seen, _BATCH)
        messages = [_message(event.type, views.event(event), event.seq) for event in events]
        seen = events[-1].seq if events else seen
        if record.revision != revision:
            revision = record.revision
            shown = ("id", "status", "status_reason", "progress")
            messages.append(_message("job", {name: getattr(record, name) for name in shown}))
        if not messages and time.monotonic() - spoke > _BEAT_EVERY:
            messages = [b": still here\n\n"]
        for message in messages:
            yield message
            spoke = time.monotonic()
        if (record.over and len(events) < _BATCH) or wired.closing.is_set():
            return
        await asyncio.sleep(0 if len(events) == _BATCH else _LOOK_EVERY)


def _message(kind: str, data: dict[str, Any], number: int | None = None) -> bytes:
    head = f"event: {kind}\n" if number is None else f"id: {number}\nevent: {kind}\n"
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"
