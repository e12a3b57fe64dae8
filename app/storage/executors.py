"""Which processes run jobs, and which of them are alive: a row per executor with its last heartbeat.

Two guards keep an executor id unique. On one host a lock file, which the kernel frees when its holder
dies, so the slot of a crashed process can be taken again at once. Between hosts the heartbeat, judged by
the database's clock.
"""

from __future__ import annotations

import fcntl
import logging
import re
import tempfile
import threading
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from socket import gethostname
from typing import TextIO

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.errors import BadRequest, Conflict, Unusable
from app.storage.database import now, read, write
from app.storage.tables import executors

log = logging.getLogger(__name__)

SLOTS = 64  # executors with generated ids on one host


class Executors:
    """The executors of one database. Seconds: dead when `silent` that long; a heartbeat `every` so often."""

    def __init__(
        self, engine: sa.Engine, *, host: str = "", silent: float = 30.0, every: float = 5.0
    ) -> None:
        self._engine = engine
        self._host = host or gethostname()
        self._silent = silent
        self._every = every

    def alive(self) -> set[str]:
        """Ids of the executors that were heard of lately."""
        with read(self._engine) as connection:
            recent = executors.c.beat_at >= now(connection) - self._silent
            return set(connection.execute(sa.select(executors.c.id).where(recent)).scalars())

    def forget(self, kept: float = 86_400.0) -> None:
        """Drop executors silent for `kept` seconds: every container may bring a name of its own."""
        with write(self._engine) as connection:
            connection.execute(executors.delete().where(executors.c.beat_at < now(connection) - kept))

    def join(self, executor_id: str, on_lost: Callable[[], None]) -> Membership:
        """Take the id and keep its heart beating until `leave`; `on_lost` is called, from the heartbeat's
        thread, should another process take the id all the same (after this one was stopped for long).

        An empty id takes the first free slot of this host: `<host>-0`, `<host>-1`, ... so that a worker
        started again gets the id of the one that died. Raises Conflict when a live process has the id or
        when, on SQLite, any process of another host runs jobs: two hosts cannot share one SQLite file.
        """
        name, lock = _lock(executor_id, self._host, self._lock_path)
        try:
            token = self._claim(name)
        except BaseException:
            lock.close()
            raise
        return Membership(self._engine, name, token, lock, self._every, on_lost)

    def _claim(self, executor_id: str) -> float:
        """The caller holds the id's lock file, so a row of this host is a dead process's."""
        with write(self._engine) as connection:
            at = now(connection)
            elsewhere = sa.and_(executors.c.host != self._host, executors.c.beat_at >= at - self._silent)
            if connection.dialect.name == "sqlite":
                other = connection.execute(sa.select(executors.c.host).where(elsewhere)).scalar()
                if other is not None:
                    raise Conflict(
                        f"Host {other!r} runs jobs on this SQLite file; {self._host!r} cannot as well.",
                        hint="Use PostgreSQL for more than one host, or stop the other host's worker.",
                    )
            row = {"host": self._host, "started_at": at, "beat_at": at}
            mine = executors.update().where(executors.c.id == executor_id, ~elsewhere)
            if connection.execute(mine.values(row)).rowcount == 0:
                try:
                    connection.execute(executors.insert().values(id=executor_id, **row))
                except IntegrityError:
                    raise _in_use(executor_id) from None
            return at

    def _lock_path(self, executor_id: str) -> Path:
        """Beside the SQLite file; for a server in the temporary directory, by the server's address."""
        url = self._engine.url
        if url.get_backend_name() == "sqlite":
            file = Path(url.database or "").resolve()
            return file.with_name(f"{file.name}.{executor_id}.lock")
        address = blake2b(url.render_as_string(hide_password=True).encode(), digest_size=6).hexdigest()
        return Path(tempfile.gettempdir()) / f"reprog-{address}-{executor_id}.lock"


class Membership:
    """An executor id, held: its lock file, its row and its heartbeat."""

    def __init__(
        self,
        engine: sa.Engine,
        executor_id: str,
        token: float,
        lock: TextIO,
        every: float,
        on_lost: Callable[[], None],
    ) -> None:
        self.id = executor_id
        self._engine = engine
        self._mine = sa.and_(executors.c.id == executor_id, executors.c.started_at == token)
        self._lock = lock
        self._every = every
        self._on_lost = on_lost
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Stop the heartbeat and forget the executor: others take what it left without waiting."""
        self._left.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        try:
            with write(self._engine) as connection:
                connection.execute(executors.delete().where(self._mine))
        except (Unusable, SQLAlchemyError):
            log.exception("executor %s could not sign off", self.id)
        self._lock.close()

    def _keep_beating(self) -> None:
        while not self._left.wait(self._every):
            try:
                with write(self._engine) as connection:
                    beat = executors.update().where(self._mine).values(beat_at=now(connection))
                    kept = connection.execute(beat).rowcount == 1
            except (Unusable, SQLAlchemyError):  # the database may be away for a while
                log.exception("executor %s: no heartbeat", self.id)
            else:
                if not kept and not self._left.is_set():
                    log.error("another process has taken executor id %s", self.id)
                    self._on_lost()
                    return


def _opened(path: Path) -> TextIO:
    """Raises Unusable where the file cannot be written: the disk is read-only or full."""
    try:
        return path.open("a")
    except OSError as error:
        raise Unusable(
            f"A file beside the database cannot be written: {path.name}: {error.strerror}.",
            code="database_unavailable",
            hint="Check free disk space and write permission.",
        ) from error


def _lock(executor_id: str, host: str, path: Callable[[str], Path]) -> tuple[str, TextIO]:
    """The id and its file, locked as long as the file is open or the process lives."""
    names = [executor_id] if executor_id else [f"{host}-{slot}" for slot in range(SLOTS)]
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,120}", names[0]):
        raise BadRequest(
            f"Executor id {names[0]!r} is not usable.",
            hint="Use up to 120 letters, digits, dots, dashes and underscores.",
            param="executor_id",
        )
    for name in names:
        lock = _opened(path(name))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
        else:
            return name, lock
    raise _in_use(names[-1])


def _in_use(executor_id: str) -> Conflict:
    return Conflict(
        f"Executor id {executor_id!r} is in use by a live process.",
        hint="Give every worker its own REPROG_EXECUTOR_ID, or leave it empty for host and slot.",
    )
