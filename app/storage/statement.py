"""Statements of the hot path: written with SQLAlchemy, compiled once, run by the driver itself.

SQLAlchemy takes 30 to 60 us to bring a statement to the driver, and SQLite 2 to 6 to run it: the ledger,
which runs a dozen for each query, would spend most of its time on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import SelectBase

Core = SelectBase | UpdateBase
Row = tuple[Any, ...]

_SQLITE = sqlite.dialect(paramstyle="named")


class Statement:
    """One statement, or one for each dialect by its name. Its constants are literal: every parameter is
    given. Runs in the transaction of the connection; values go in and come out as the driver has them.
    Raises what SQLAlchemy would."""

    def __init__(self, core: Core | Mapping[str, Core]) -> None:
        self._cores = core if isinstance(core, Mapping) else {"sqlite": core, "postgresql": core}
        self._texts: dict[tuple[object, ...], str] = {}

    def rows(self, connection: Connection, **values: Any) -> list[Row]:  # noqa: ANN401
        """All rows. A list is for an expanding parameter and holds at least one value."""
        lists = {name: _padded(value) for name, value in values.items() if isinstance(value, list)}
        single = {name: value for name, value in values.items() if name not in lists}
        listed = {f"{name}_{n}": one for name, some in lists.items() for n, one in enumerate(some, 1)}
        text, driver = self._text(connection.dialect, tuple(single), lists), _driver(connection)
        try:
            cursor = driver.execute(text, single | listed)
            return cursor.fetchall() if cursor.description else []
        except connection.dialect.loaded_dbapi.Error as error:
            raise _failure(connection, text, error) from error

    def dicts(self, connection: Connection, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        """`rows` of a SELECT by the names of its columns."""
        core = self._cores[connection.dialect.name]
        assert isinstance(core, SelectBase)
        names = core.selected_columns.keys()
        return [dict(zip(names, row, strict=True)) for row in self.rows(connection, **values)]

    def each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Once for each of `rows`, which name the same parameters (of an INSERT: columns). Of a statement
        that returns something, the first value that each of them returned."""
        if not rows:
            return []
        text, driver = self._text(connection.dialect, tuple(rows[0]), {}), _driver(connection)
        try:
            if " RETURNING " not in text:
                driver.cursor().executemany(text, rows)
                return []
            if len(rows) == 1 or connection.dialect.name == "sqlite":
                return [driver.execute(text, row).fetchone()[0] for row in rows]
            cursor = driver.cursor()
            cursor.executemany(text, rows, returning=True)  # one way to the server and back
            found = [cursor.fetchone()[0]]
            while cursor.nextset():
                found.append(cursor.fetchone()[0])
            return found
        except connection.dialect.loaded_dbapi.Error as error:
            raise _failure(connection, text, error) from error

    def _text(self, dialect: Dialect, names: tuple[str, ...], lists: Mapping[str, list[Any]]) -> str:
        """The statement with these parameters, for lists of these lengths."""
        mark = (dialect.name, names, *map(len, lists.values()))
        if (text := self._texts.get(mark)) is None:
            core, mine = self._cores[dialect.name], _SQLITE if dialect.name == "sqlite" else dialect
            compiled = core.compile(dialect=mine, column_keys=names or None)
            assert isinstance(compiled, SQLCompiler)
            state = compiled.construct_expanded_state({**dict.fromkeys(names), **lists})
            text = self._texts[mark] = state.statement
        return text


def _padded(values: list[Any]) -> list[Any]:
    """As long as the next power of two, the last repeated: a few texts serve all lengths."""
    return values + values[-1:] * ((1 << (len(values) - 1).bit_length()) - len(values))


def _driver(connection: Connection) -> Any:  # noqa: ANN401 - a sqlite3.Connection or psycopg.Connection
    return connection.connection.dbapi_connection


def _failure(connection: Connection, text: str, error: Any) -> BaseException:  # noqa: ANN401
    """The driver's error as SQLAlchemy's; a connection that broke is not used again."""
    dialect = connection.dialect
    if dialect.is_disconnect(error, _driver(connection), None):
        connection.invalidate(error)
    return DBAPIError.instance(
        text, None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
    )
