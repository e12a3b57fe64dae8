"""The audit log: one line for each call that changed or spent something, written before its answer leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select

from app.storage import tables
from app.storage.database import now, read, write
from app.storage.statement import Statement
from app.storage.together import Together

_audit = tables.audit
_PUT = Statement(insert(_audit).inline())  # no id is wanted back
_BATCH = 2000  # lines deleted in one transaction


@dataclass(frozen=True)
class AuditLine:
    """`cost_micros` is what the call itself spent; a job has a ledger of its own. `at`: UTC epoch seconds."""

    id: int
    at: float
    key_id: str
    action: str
    resource: str
    request_id: str
    status: int
    cost_micros: int
    currency: str | None


@dataclass(frozen=True)
class Note:
    """A line to be written."""

    values: Mapping[str, Any]


class Audit:
    """`submit` writes notes in transactions that are made anyway (the ledger's); by default in its own."""

    def __init__(self, engine: Engine, submit: Callable[[Note], Future[int]] | None = None) -> None:
        self._engine = engine
        self._submit = submit or Together[Note](self._insert, "audit").submit

    def add(
        self,
        *,
        key_id: str,
        action: str,
        resource: str,
        request_id: str,
        status: int,
        cost_micros: int = 0,
        currency: str | None = None,
    ) -> Future[int]:
        """One line; the future is done when it is committed. It raises Unusable."""
        line = {
            "key_id": key_id,
            "action": action[:60],
            "resource": resource[:200],
            "request_id": request_id,
            "status": status,
            "cost_micros": cost_micros,
            "currency": currency,
        }
        return self._submit(Note(line))

    def _insert(self, notes: Sequence[Note]) -> list[int]:
        with write(self._engine) as connection:
            put(connection, notes)
        return [1] * len(notes)

    def list(
        self,
        after: int | None = None,
        limit: int = 20,
        *,
        only: Mapping[str, str] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[AuditLine]:
        """Newest first; ids below `after`. `only` maps columns to the values wanted."""
        c = _audit.c
        query = select(_audit).order_by(c.id.desc()).limit(limit)
        query = query.where(*(c[name] == value for name, value in (only or {}).items()))
        if after is not None:
            query = query.where(c.id < after)
        if since is not None:
            query = query.where(c.at >= since)
        if until is not None:
            query = query.where(c.at < until)
        with read(self._engine) as connection:
            rows: list[dict[str, Any]] = [dict(row) for row in connection.execute(query).mappings()]
        return [AuditLine(**row) for row in rows]

    def prune(self, days: int) -> int:
        """Delete lines older than `days`; how many. 0 days keeps all."""
        c, gone = _audit.c, 0
        while days:
            with write(self._engine) as connection:  # some at a time: others write meanwhile
                old = now(connection) - days * 86_400.0
                eldest = connection.execute(select(c.id, c.at).order_by(c.id).limit(_BATCH)).all()
                ids = [ident for ident, at in eldest if at < old]
                if ids:
                    connection.execute(delete(_audit).where(c.id <= ids[-1], c.at < old))
                gone += len(ids)
            if len(ids) < _BATCH:
                break
        return gone


def put(connection: Connection, notes: Sequence[Note]) -> None:
    """Write the lines, in the caller's transaction."""
    if notes:
        clock = now(connection)
        _PUT.each(connection, [{"at": clock, **note.values} for note in notes])
