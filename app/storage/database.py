"""One database, SQLite or PostgreSQL: engine, transactions, clock, migrations.

SQLite runs in WAL mode with `synchronous=FULL`: the intent to spend must survive a power cut, because the
provider's bill does, and NORMAL may lose the last commits (only a lease of the rate, which means nothing by
then, waits for no disk). Writers take the write lock at BEGIN
(`BEGIN IMMEDIATE`), so a transaction never fails half way by having to upgrade its lock.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError

from app.errors import Unusable
from app.storage.tables import metadata

_BUSY_MS = 30_000
_FROZEN_MS = 15_000  # far longer than any transaction of ours between two statements
_READ = {"reprog_read": True}
_turns: WeakKeyDictionary[Engine, Lock] = WeakKeyDictionary()
_turns_lock = Lock()
_AWAY = (OperationalError, InterfaceError, InternalError)  # the last: PostgreSQL's word for read-only
_MIGRATION_LOCK = 7_305_477  # any constant: one migrating process at a time on PostgreSQL


def open_engine(url: str) -> Engine:
    """The engine of `sqlite:///path` or `postgresql+psycopg://...`."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(parsed, pool_size=10, max_overflow=10, pool_pre_ping=True, pool_use_lifo=True)
        event.listen(engine, "connect", _postgres_connect)
        return engine
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    # Last in, first out: the connection that wrote last still has the pages, and its statements.
    engine = create_engine(parsed, pool_size=16, max_overflow=16, pool_use_lifo=True)
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _postgres_connect(connection: DBAPIConnection, _record: object) -> None:
    """A process that freezes inside a transaction must not keep its locks for ever."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {_FROZEN_MS}")
    cursor.close()
    connection.commit()


def _sqlite_connect(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not BEGIN by itself: _sqlite_begin does
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={_BUSY_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("reprog_read", False):
        connection.exec_driver_sql("BEGIN")
        return
    wait = "NORMAL" if options.get("reprog_brief", False) else "FULL"
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA synchronous={wait}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def write(engine: Engine, *, brief: bool = False) -> Generator[Connection, None, None]:
    """One write transaction. `brief`: of what means nothing after a power cut; SQLite does not wait for the
    disk then. Raises Unusable when the database is full, read-only, locked or away."""
    options = {"reprog_brief": brief}
    try:
        with _turn(engine), engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection
    except _AWAY as error:
        raise _unusable(error) from error


def _turn(engine: Engine) -> AbstractContextManager[object]:
    """SQLite has one writer at a time, and whoever finds it busy sleeps and looks again: threads of one
    process take turns before they ask. A lock on PostgreSQL is its own queue."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    with _turns_lock:
        return _turns.setdefault(engine, Lock())


@contextmanager
def read(engine: Engine) -> Generator[Connection, None, None]:
    """One consistent snapshot to read from; on SQLite it waits for no writer. Raises Unusable."""
    try:
        with engine.connect().execution_options(**_READ) as connection:
            yield connection
    except _AWAY as error:
        raise _unusable(error) from error


def _unusable(error: DBAPIError) -> Unusable:
    return Unusable(
        f"The database cannot serve now: {error.orig}",
        code="database_unavailable",
        hint="Check free disk space, write permission and that the database server is up.",
    )


def now(connection: Connection) -> float:
    """The database's clock, UTC epoch seconds. A SQLite file lives on one machine: its clock is ours."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


# ---------------------------------------------------------------- migrations


def _config(connection: Connection) -> Config:
    here = Path(__file__).resolve()
    packaged, repository = here.parents[1] / "migrations", here.parents[2] / "migrations"
    config = Config()
    folder = packaged if packaged.is_dir() else repository
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def migrate(url: str) -> None:
    """Bring the database to the newest schema; safe to call from several processes at once. One that is
    there already is only read: a start need not wait for writers."""
    if not behind(url):
        return
    engine = open_engine(url)
    try:
        with write(engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            command.upgrade(_config(connection), "head")
    finally:
        engine.dispose()


def behind(url: str) -> bool:
    """Whether the database still has to be migrated. Raises Unusable when it cannot be reached."""
    engine = open_engine(url)
    try:
        with read(engine) as connection:
            head = ScriptDirectory.from_config(_config(connection)).get_current_head()
            return MigrationContext.configure(connection).get_current_revision() != head
    finally:
        engine.dispose()


def check_migrations(url: str) -> list[Any]:
    """Differences between the models and an (empty) database migrated to head: `[]` when they agree."""
    migrate(url)
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        engine.dispose()
