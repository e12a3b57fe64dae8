"""Canaries: a few fixed queries of an endpoint's source model on a schedule, and what they were answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine, delete, insert, select, update

from app.storage import events, tables
from app.storage.booking import open_scopes
from app.storage.database import now, read, write

State = Literal["waiting", "ok", "degraded"]
_canaries, _budgets = tables.canaries, tables.budgets
_endpoints, _jobs = tables.endpoints, tables.jobs


@dataclass(frozen=True)
class CanaryRecord:
    """`baseline`: {"model_version", "answers": a mapping of label to score for each query}, None before the
    first run; it is of the endpoint's version `version`. `last`: what the last run found."""

    endpoint_id: str
    queries: int
    every_seconds: float
    tolerance: float
    state: State
    version: int
    baseline: dict[str, Any] | None
    last: dict[str, Any] | None
    next_at: float


def scope(endpoint_id: str) -> str:
    """The scope of a canary's spending: beside the endpoint's own, under a cap of its own."""
    return f"{endpoint_id}:canary"


class Canaries:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, endpoint_id: str, queries: int, every_seconds: float, tolerance: float) -> None:
        """Set the canary up, or anew: it is due at once, and its first run takes the baseline."""
        with write(self._engine) as connection:
            drop(connection, endpoint_id)
            values = {"queries": queries, "every_seconds": every_seconds, "tolerance": tolerance}
            fresh = {"state": "waiting", "version": 0, "next_at": now(connection)}
            connection.execute(insert(_canaries).values(endpoint_id=endpoint_id, **values, **fresh))
            known = select(_budgets.c.scope).where(_budgets.c.scope == scope(endpoint_id))
            if connection.execute(known).scalar() is None:
                open_scopes(connection, [scope(endpoint_id)], None, None)

    def remove(self, endpoint_id: str) -> None:
        with write(self._engine) as connection:
            drop(connection, endpoint_id)

    def get(self, endpoint_id: str) -> CanaryRecord | None:
        with read(self._engine) as connection:
            query = select(_canaries).where(_canaries.c.endpoint_id == endpoint_id)
            row = connection.execute(query).mappings().first()
        return None if row is None else CanaryRecord(**row)

    def due(self) -> list[tuple[str, CanaryRecord]]:
        """(endpoint's name, canary) of those whose time has come. They are the caller's: their next time is
        one interval on, so that no two workers run the same."""
        mine: list[tuple[str, CanaryRecord]] = []
        c = _canaries.c
        with write(self._engine) as connection:
            clock = now(connection)
            query = (
                select(_endpoints.c.name, _canaries)
                .join(_endpoints, _endpoints.c.id == c.endpoint_id)
                .where(c.next_at <= clock, _endpoints.c.enabled == 1)
            )
            for row in connection.execute(query).mappings().all():
                found = {name: row[name] for name in CanaryRecord.__dataclass_fields__}
                taken = connection.execute(
                    update(_canaries)
                    .where(c.endpoint_id == row["endpoint_id"], c.next_at == row["next_at"])
                    .values(next_at=clock + row["every_seconds"])
                )
                if taken.rowcount == 1:
                    mine.append((row["name"], CanaryRecord(**found)))
        return mine

    def record(
        self,
        canary: CanaryRecord,
        job_id: str,
        *,
        state: State,
        last: dict[str, Any],
        baseline: dict[str, Any] | None,
        version: int,
    ) -> None:
        """What a run found. A change of state is an event of the endpoint's job."""
        with write(self._engine) as connection:
            c = _canaries.c
            before = connection.execute(
                select(c.state).where(c.endpoint_id == canary.endpoint_id).with_for_update()
            ).scalar()
            if before is None:  # removed meanwhile
                return
            told = {"last": last, "baseline": baseline, "version": version, "state": state}
            connection.execute(update(_canaries).where(c.endpoint_id == canary.endpoint_id).values(told))
            kind = {("ok", "degraded"): "endpoint.degraded", ("degraded", "ok"): "endpoint.recovered"}
            if (event := kind.get((before, state))) is not None:
                connection.execute(select(_jobs.c.id).where(_jobs.c.id == job_id).with_for_update())
                name = select(_endpoints.c.name).where(_endpoints.c.id == canary.endpoint_id)
                data = {"endpoint": connection.execute(name).scalar(), "canary": last}
                events.append(connection, job_id, event, data)


def drop(connection: Connection, endpoint_id: str) -> None:
    """Forget the canary; what it spent stays in the ledger."""
    connection.execute(delete(_canaries).where(_canaries.c.endpoint_id == endpoint_id))
