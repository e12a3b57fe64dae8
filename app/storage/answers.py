"""Paid answers by key: what was bought once is never bought again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, Insert, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from app.storage import tables
from app.storage.database import read
from app.storage.statement import Statement

_CHUNK = 500  # keys per SELECT: well under SQLite's limit of bound parameters

_WANTED = Statement(
    select(tables.answers.c.key, tables.answers.c.scores).where(
        tables.answers.c.key.in_(bindparam("keys", expanding=True))
    )
)
_INSERT = Statement(
    {
        name: dialect.insert(tables.answers).on_conflict_do_nothing().inline()  # no id is wanted back
        for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
    }
)

Row = NDArray[np.float32]  # (K,) in the connection's label order; NaN = censored


class Answers:
    """The answer store. Rows are written by `Ledger.settle`, in the transaction that pays for them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.near = engine.dialect.name == "sqlite"  # where readers wait for no writer, either
        self._by_file: bool | None = None  # a migration decides, so once is enough

    @property
    def by_file(self) -> bool:
        """Whether there are answers of an older release, keyed by the file sent. Raises Unusable."""
        if self._by_file is None:
            with read(self._engine) as connection:
                found = connection.execute(select(tables.file_keys.c.last_answer)).first()
            self._by_file = found is not None
        return self._by_file

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Row]:
        """The rows of those of `keys` (20 bytes each) that are known. Raises Unusable."""
        found: dict[bytes, Row] = {}
        with read(self._engine) as connection:
            for start in range(0, len(keys), _CHUNK):
                for key, scores in _WANTED.rows(connection, keys=list(keys[start : start + _CHUNK])):
                    found[key] = np.frombuffer(scores, dtype="<f4")
        return found


def insert(connection: Connection, rows: Iterable[tuple[bytes, Row]]) -> None:
    """Store answers; a key that is already there keeps its first answer."""
    _INSERT.each(
        connection, [{"key": key, "scores": np.asarray(row, dtype="<f4").tobytes()} for key, row in rows]
    )


def insert_ignore(connection: Connection, table: tables.Table) -> Insert:
    """INSERT ... ON CONFLICT DO NOTHING in the dialect of the connection."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table).on_conflict_do_nothing()
