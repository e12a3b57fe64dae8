"""A job's row inside a transaction: read it locked, check who holds it, change it and tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, insert, select, update

from app.errors import Conflict, NotFound, ReprogError, StaleFence
from app.storage import events, tables
from app.storage.database import now

OVER = ("succeeded", "failed", "cancelled")
HELD = ("running", "pausing", "cancelling")  # by a worker, dead or alive
_PAST = {
    "pause": "paused",
    "resume": "resumed",
    "cancel": "cancelled",
    "delete": "deleted",
    "change": "changed",
}
_jobs = tables.jobs


@dataclass(frozen=True)
class JobRecord:
    """One row. Times are UTC epoch seconds; `dataset_id` is "" for an imported program."""

    id: str
    name: str
    status: str
    want: str
    status_reason: str | None
    spec: dict[str, Any]
    metadata: dict[str, Any]
    connection_id: str
    dataset_id: str
    fence: int
    revision: int
    progress: dict[str, Any]
    metrics: dict[str, Any]
    error: dict[str, Any] | None
    created_at: float
    started_at: float | None
    finished_at: float | None

    @property
    def over(self) -> bool:
        return self.status in OVER


def one(ident: str) -> Select[Any]:
    return select(_jobs).where(_jobs.c.id == ident)


def record(row: RowMapping | None, ident: str) -> JobRecord:
    """Raises NotFound for None."""
    if row is None:
        raise NotFound(f"There is no job {ident!r}.", param="job_id")
    values: dict[str, Any] = {name: row[name] for name in JobRecord.__dataclass_fields__}
    values["dataset_id"] = row["dataset_id"] or ""
    return JobRecord(**values)


def lock(connection: Connection, ident: str) -> JobRecord:
    """The row for a user's change. Raises NotFound."""
    query = one(ident).where(_jobs.c.deleted_at.is_(None)).with_for_update()
    return record(connection.execute(query).mappings().first(), ident)


def held(connection: Connection, ident: str, fence: int) -> JobRecord:
    """The row for a worker's change. Raises StaleFence when another took the job, or it is over."""
    query = one(ident).where(_jobs.c.fence == fence).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None or row["status"] in OVER:
        raise StaleFence(ident)
    return record(row, ident)


def allow(job: JobRecord, action: str, statuses: Sequence[str]) -> None:
    """Raises Conflict `invalid_state` unless the job is in one of `statuses`."""
    if job.status not in statuses:
        raise Conflict(
            f"A job that is {job.status} cannot be {_PAST[action]}.",
            code="invalid_state",
            hint=f"Only a job that is {', '.join(statuses)} can be.",
        )


def add(connection: Connection, ident: str, status: str, **values: object) -> None:
    """A new row."""
    fresh: dict[str, Any] = {"want": "run", "fence": 0, "revision": 1, "progress": {}, "metrics": {}}
    row = {"id": ident, "status": status, "created_at": now(connection), **fresh, **values}
    connection.execute(insert(_jobs).values(row))


def change(connection: Connection, ident: str, **values: object) -> None:
    changed: dict[str, Any] = {"revision": _jobs.c.revision + 1, **values}
    connection.execute(update(_jobs).where(_jobs.c.id == ident).values(changed))


def end(connection: Connection, ident: str, status: str, reason: str | None, **values: object) -> None:
    """The job is over."""
    change(connection, ident, status=status, status_reason=reason, finished_at=now(connection), **values)
    told = {"reason": reason, **({"error": values["error"]} if values.get("error") else {})}
    events.append(connection, ident, f"job.{status}", told)


def carry_out(connection: Connection, job: JobRecord) -> None:
    """Pause or cancel, as the user wants."""
    if job.want == "cancel":
        end(connection, job.id, "cancelled", job.status_reason or "cancelled_by_user")
    else:
        change(connection, job.id, status="paused")
        events.append(connection, job.id, "job.paused", {"reason": job.status_reason})


def document(error: ReprogError) -> dict[str, Any]:
    """The job object's `error`."""
    return {"code": error.code, "detail": error.detail, "hint": error.hint, "param": error.param}
