"""Jobs that wait for a provider that is down, read from their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from app.storage import tables
from app.storage.database import read

_jobs, _events = tables.jobs.c, tables.events.c


@dataclass(frozen=True)
class DownJob:
    """A job that waits for its provider. `paused_at` is UTC epoch seconds; `revived`: how often it was
    resumed by itself since its last step."""

    id: str
    connection_id: str
    paused_at: float
    revived: int


def jobs(engine: Engine, reason: str) -> list[DownJob]:
    """Jobs paused for `reason`."""
    with read(engine) as connection:
        query = select(_jobs.id, _jobs.connection_id).where(
            _jobs.status == "paused", _jobs.status_reason == reason, _jobs.deleted_at.is_(None)
        )
        down: list[DownJob] = []
        for ident, account in connection.execute(query):
            kinds = ("job.step", "job.paused", "job.resumed")
            history = connection.execute(
                select(_events.type, _events.data, _events.created_at)
                .where(_events.job_id == ident, _events.type.in_(kinds))
                .order_by(_events.seq.desc())
                .limit(50)
            )
            down.append(_down(ident, account, list(history)))
    return down


def _down(ident: str, connection_id: str, history: Sequence[tuple[str, dict[str, Any], float]]) -> DownJob:
    """`history` is newest first."""
    paused = next((at for kind, _, at in history if kind == "job.paused"), 0.0)
    revived = 0
    for kind, data, _ in history:
        if kind == "job.step" or (kind == "job.resumed" and data.get("by") != "health"):
            break
        revived += kind == "job.resumed"
    return DownJob(ident, connection_id, paused, revived)


def stands_after(engine: Engine, ident: str, reason: str) -> bool:
    """Whether the job has taken no step since it was last paused, and that for `reason`."""
    kinds = _events.type.in_(("job.step", "job.paused"))
    newest = select(_events.data).where(_events.job_id == ident, kinds).order_by(_events.seq.desc()).limit(1)
    with read(engine) as connection:
        data = connection.execute(newest).scalar()
    return data is not None and data.get("reason") == reason
