"""What a job leaves behind as it learns: the state to resume from, servable programs, the curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from app.errors import NotFound
from app.storage import ids, tables
from app.storage.database import now, read

_checkpoints, _points = tables.checkpoints, tables.points


@dataclass(frozen=True)
class CheckpointRecord:
    """A servable program; its bytes are read by `program`."""

    id: str
    job_id: str
    step: int
    config: dict[str, Any]
    metrics: dict[str, Any]
    queries: int
    created_at: float


@dataclass(frozen=True)
class Point:
    """One step of the learning curve. `at` is UTC epoch seconds."""

    step: int
    queries: int
    spent_micros: int
    at: float
    data: dict[str, Any]


def replace_state(connection: Connection, job_id: str, step: int, blob: bytes, queries: int) -> None:
    """The one state to resume from."""
    c = _checkpoints.c
    connection.execute(delete(_checkpoints).where(c.job_id == job_id, c.kind == "state"))
    _insert(connection, job_id, step, "state", blob, {}, {}, queries)


def put_program(
    connection: Connection,
    job_id: str,
    step: int,
    blob: bytes,
    *,
    config: dict[str, Any],
    metrics: dict[str, Any],
    queries: int,
) -> str:
    """Store a program; one made again for a step (after a crash) replaces the first. Returns its id."""
    c = _checkpoints.c
    mine = (c.job_id == job_id, c.kind == "program", c.step == step)
    ident = connection.execute(select(c.id).where(*mine)).scalar()
    if ident is None:
        return _insert(connection, job_id, step, "program", blob, config, metrics, queries)
    values = {"blob": blob, "config": config, "metrics": metrics, "queries": queries}
    connection.execute(update(_checkpoints).where(c.id == ident).values(values))
    return ident


def add_evaluation(
    connection: Connection, job_id: str, blob: bytes, *, config: dict[str, Any], metrics: dict[str, Any]
) -> str:
    """A program of another head. Its step counts down from -1: below all that was learned, so that the best
    stays the best. The caller holds the job's row. Returns its id."""
    c = _checkpoints.c
    lowest = connection.execute(select(func.min(c.step)).where(c.job_id == job_id)).scalar()
    return _insert(connection, job_id, min(lowest or 0, 0) - 1, "program", blob, config, metrics, 0)


def _insert(
    connection: Connection,
    job_id: str,
    step: int,
    kind: str,
    blob: bytes,
    config: dict[str, Any],
    metrics: dict[str, Any],
    queries: int,
) -> str:
    ident = ids.new("ckpt_")
    connection.execute(
        insert(_checkpoints).values(
            id=ident,
            job_id=job_id,
            step=step,
            kind=kind,
            blob=blob,
            config=config,
            metrics=metrics,
            queries=queries,
            created_at=now(connection),
        )
    )
    return ident


def add_point(
    connection: Connection, job_id: str, step: int, queries: int, spent_micros: int, data: dict[str, Any]
) -> None:
    c = _points.c
    connection.execute(delete(_points).where(c.job_id == job_id, c.step == step))
    row = {"job_id": job_id, "step": step, "queries": queries, "spent_micros": spent_micros, "data": data}
    connection.execute(insert(_points).values(at=now(connection), **row))


def state(engine: Engine, job_id: str) -> bytes | None:
    c = _checkpoints.c
    with read(engine) as connection:
        return connection.execute(select(c.blob).where(c.job_id == job_id, c.kind == "state")).scalar()


def program(engine: Engine, checkpoint_id: str) -> bytes:
    """Raises NotFound."""
    c = _checkpoints.c
    with read(engine) as connection:
        blob = connection.execute(select(c.blob).where(c.id == checkpoint_id, c.kind == "program")).scalar()
    if blob is None:
        raise NotFound(f"There is no checkpoint {checkpoint_id!r}.", param="checkpoint_id")
    return blob


def has_program(engine: Engine, job_id: str, checkpoint_id: str) -> bool:
    c = _checkpoints.c
    mine = select(c.id).where(c.id == checkpoint_id, c.job_id == job_id, c.kind == "program")
    with read(engine) as connection:
        return connection.execute(mine).scalar() is not None


def programs(
    engine: Engine, job_id: str, after: str | None = None, limit: int = 20, *, evaluations: bool = False
) -> list[CheckpointRecord]:
    """A job's programs, or only those of `add_evaluation`, newest first; ids below `after`."""
    c = _checkpoints.c
    shown = [c[name] for name in CheckpointRecord.__dataclass_fields__]
    query = select(*shown).where(c.job_id == job_id, c.kind == "program").order_by(c.id.desc()).limit(limit)
    if evaluations:
        query = query.where(c.step < 0)
    if after is not None:
        query = query.where(c.id < after)
    with read(engine) as connection:
        return [CheckpointRecord(**row) for row in connection.execute(query).mappings()]


def spread(engine: Engine, job_id: str, most: int) -> tuple[list[CheckpointRecord], int]:
    """At most `most` (2 or more) of the programs a job learned, those of other heads left out: evenly spaced
    by step, the first and the last among them. And how many there are."""
    c = _checkpoints.c
    mine = (c.job_id == job_id, c.kind == "program", c.step >= 0)
    shown = [c[name] for name in CheckpointRecord.__dataclass_fields__]
    with read(engine) as connection:
        steps = list(connection.execute(select(c.step).where(*mine).order_by(c.step)).scalars())
        gap = max((len(steps) - 1) / (most - 1), 1.0)
        kept = {steps[round(i * gap)] for i in range(min(most, len(steps)))}
        query = select(*shown).where(*mine, c.step.in_(kept)).order_by(c.step)
        rows = connection.execute(query).mappings().all()
    return [CheckpointRecord(**row) for row in rows], len(steps)


def latest(engine: Engine, job_id: str) -> CheckpointRecord:
    """The program of the highest step: the finished one once there is one. Raises NotFound."""
    c = _checkpoints.c
    shown = [c[name] for name in CheckpointRecord.__dataclass_fields__]
    query = select(*shown).where(c.job_id == job_id, c.kind == "program").order_by(c.step.desc()).limit(1)
    with read(engine) as connection:
        row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(
            "The job has no program yet.",
            code="no_program_yet",
            hint="The first one is stored with the first step.",
        )
    return CheckpointRecord(**row)


def points(engine: Engine, job_id: str, limit: int = 500) -> list[Point]:
    """The curve, thinned evenly to at most about `limit` points; first and last are always there."""
    c = _points.c
    place = func.row_number().over(order_by=c.step).label("place")
    numbered = select(c.step, place).where(c.job_id == job_id).subquery()  # from the key alone
    with read(engine) as connection:
        total = connection.execute(select(func.count()).where(c.job_id == job_id)).scalar_one()
        stride = max(1, -(-total // limit))
        n = numbered.c.place
        kept = select(numbered.c.step).where(((n - 1) % stride == 0) | (n == total))
        found = select(_points).where(c.job_id == job_id, c.step.in_(kept)).order_by(c.step)
        rows = connection.execute(found).mappings().all()
    return [Point(**{name: row[name] for name in Point.__dataclass_fields__}) for row in rows]
