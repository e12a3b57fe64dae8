"""A job's events: numbered 1, 2, 3, ... without a gap, written in the transaction of what they tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select

from app.storage import tables, webhooks
from app.storage.database import now, read

#: Every type there is.
TYPES = (
    "job.created", "job.started", "job.step", "job.checkpoint", "job.evaluated", "job.images_left_out",
    "job.changed", "job.paused", "job.resumed", "job.continued", "job.cancelling", "job.published",
    "job.imported", "job.succeeded", "job.failed", "job.cancelled", "job.warning",
    "job.expectation", "endpoint.degraded", "endpoint.recovered",
)  # fmt: skip
_events = tables.events


@dataclass(frozen=True)
class Event:
    job_id: str
    seq: int
    type: str
    data: dict[str, Any]
    created_at: float


def append(connection: Connection, job_id: str, type: str, data: dict[str, Any]) -> int:
    """Add an event, for webhooks too, and return its number. The caller's transaction holds the job's row
    already (it has written it), which keeps two writers from taking the same number."""
    c = _events.c
    last = connection.execute(select(func.max(c.seq)).where(c.job_id == job_id)).scalar() or 0
    row = {"job_id": job_id, "seq": last + 1, "type": type, "data": data, "created_at": now(connection)}
    connection.execute(insert(_events).values(row))
    webhooks.tell(connection, type, {"job_id": job_id, "seq": last + 1, **data})
    return last + 1


def after(engine: Engine, job_id: str, seq: int, limit: int = 100) -> list[Event]:
    """Events with a number above `seq`, oldest first."""
    c = _events.c
    query = select(_events).where(c.job_id == job_id, c.seq > seq).order_by(c.seq).limit(limit)
    with read(engine) as connection:
        return [Event(**row) for row in connection.execute(query).mappings()]
