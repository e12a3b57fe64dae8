"""The last lines of what only grows, newest first: for people, who look at the end."""

from __future__ import annotations

from sqlalchemy import Engine, select

from app.storage import tables
from app.storage.budget import Attempt
from app.storage.database import read
from app.storage.events import Event


def attempts(engine: Engine, scope: str, limit: int) -> list[Attempt]:
    """Requests paid by `scope`."""
    c = tables.attempts.c
    shown = [c[name] for name in Attempt.__dataclass_fields__]
    query = select(*shown).where(c.scope == scope).order_by(c.id.desc()).limit(limit)
    with read(engine) as connection:
        return [Attempt(**row) for row in connection.execute(query).mappings()]


def events(engine: Engine, job_id: str, limit: int) -> list[Event]:
    """Events of a job."""
    c = tables.events.c
    query = select(tables.events).where(c.job_id == job_id).order_by(c.seq.desc()).limit(limit)
    with read(engine) as connection:
        return [Event(**row) for row in connection.execute(query).mappings()]
