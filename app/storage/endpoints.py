"""Endpoints: a name, its versions (each one stored program), and the one that is live."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, update

from app.errors import BadRequest, Conflict, NotFound
from app.storage import canaries, ids, tables
from app.storage.booking import open_scopes
from app.storage.canaries import Canaries
from app.storage.database import now, read, write

LIVE_SECONDS = 1.0  # how long another process may go on serving what was live before a change
_endpoints, _versions = tables.endpoints, tables.endpoint_versions
_checkpoints, _jobs = tables.checkpoints, tables.jobs


@dataclass(frozen=True)
class VersionRecord:
    version: int
    job_id: str
    checkpoint_id: str
    connection_id: str
    created_at: float


@dataclass(frozen=True)
class EndpointRecord:
    """An endpoint with its live version. Its id is the scope of its spending."""

    id: str
    name: str
    version: int
    enabled: bool
    created_at: float
    live: VersionRecord


@dataclass(frozen=True)
class LiveVersion:
    """What answers a prediction."""

    endpoint_id: str
    name: str
    version: int
    job_id: str
    checkpoint_id: str
    connection_id: str


class Endpoints:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.canaries = Canaries(engine)
        self._lives: dict[str, tuple[LiveVersion, float]] = {}  # by name; good until (monotonic seconds)
        self._changes = 0  # made here: what was read before one is not kept after it

    def publish(
        self, name: str, job_id: str, checkpoint_id: str, *, overwrite: bool = True
    ) -> EndpointRecord:
        """Make a program the live version of `name`, which is made when it is new. A program that is live
        already stays so. Raises NotFound, BadRequest (the checkpoint is another job's), Conflict `name_taken`
        unless `overwrite`."""
        with self._changing() as connection:
            source = _source(connection, job_id, checkpoint_id)
            query = select(_endpoints).where(_endpoints.c.name == name).with_for_update()
            row = connection.execute(query).mappings().first()
            if row is None:
                ident = ids.new("ep_")
                values = {
                    "id": ident,
                    "name": name,
                    "version": 1,
                    "enabled": 1,
                    "created_at": now(connection),
                }
                connection.execute(insert(_endpoints).values(values))
                open_scopes(connection, [ident], None, None)
                _add(connection, ident, 1, job_id, checkpoint_id, source)
            elif not overwrite:
                raise Conflict(
                    f"There is an endpoint {name!r} already.",
                    code="name_taken",
                    param="name",
                    hint='Choose another name, or send "overwrite": true to make this its new version.',
                )
            elif _live(connection, row).checkpoint_id != checkpoint_id:
                v = _versions.c
                last = select(func.max(v.version)).where(v.endpoint_id == row["id"])
                version = connection.execute(last).scalar_one() + 1
                _add(connection, row["id"], version, job_id, checkpoint_id, source)
                _set(connection, row["id"], version=version)
        return self.get(name)

    def get(self, name: str) -> EndpointRecord:
        """Raises NotFound."""
        with read(self._engine) as connection:
            row = connection.execute(select(_endpoints).where(_endpoints.c.name == name)).mappings().first()
            if row is None:
                raise NotFound(f"There is no endpoint {name!r}.", param="name")
            return _record(connection, row)

    def live(self, name: str) -> LiveVersion:
        """Read from the database. Raises NotFound, Conflict `endpoint_disabled`."""
        changes, until = self._changes, time.monotonic() + LIVE_SECONDS
        found = self.get(name)
        if not found.enabled:
            raise Conflict(
                f"Endpoint {name!r} is disabled.",
                code="endpoint_disabled",
                hint='PATCH it with {"enabled": true}.',
            )
        live = found.live
        version = LiveVersion(
            found.id, name, found.version, live.job_id, live.checkpoint_id, live.connection_id
        )
        if changes == self._changes:
            self._lives[name] = version, until
        return version

    def lately(self, name: str) -> LiveVersion | None:
        """What `live` said less than LIVE_SECONDS ago, with no change made by this process since; never
        blocks. A change made by another process is seen when that time is over."""
        version, until = self._lives.get(name, (None, 0.0))
        return version if time.monotonic() < until else None

    @contextmanager
    def _changing(self) -> Generator[Connection]:
        """A transaction after which, whatever became of it, nothing known of live versions holds."""
        try:
            with write(self._engine) as connection:
                yield connection
        finally:
            self._changes += 1
            self._lives.clear()

    def list(self, after: str | None = None, limit: int = 20) -> list[EndpointRecord]:
        """Newest first; ids below `after`."""
        query = select(_endpoints).order_by(_endpoints.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(_endpoints.c.id < after)
        with read(self._engine) as connection:
            return [_record(connection, row) for row in connection.execute(query).mappings().all()]

    def versions(self, name: str, after: int | None = None, limit: int = 20) -> list[VersionRecord]:
        """Newest first; versions below `after`. Raises NotFound."""
        found = self.get(name)
        c = _versions.c
        query = select(_versions).where(c.endpoint_id == found.id).order_by(c.version.desc()).limit(limit)
        if after is not None:
            query = query.where(c.version < after)
        with read(self._engine) as connection:
            return [_version(row) for row in connection.execute(query).mappings()]

    def edit(self, name: str, *, version: int | None = None, enabled: bool | None = None) -> EndpointRecord:
        """Make another version live (rollback), or switch the endpoint off and on. Raises NotFound,
        BadRequest `unknown_version`."""
        found = self.get(name)
        with self._changing() as connection:
            if version is not None:
                c = _versions.c
                known = select(c.version).where(c.endpoint_id == found.id, c.version == version)
                if connection.execute(known).scalar() is None:
                    raise BadRequest(
                        f"Endpoint {name!r} has no version {version}.",
                        code="unknown_version",
                        param="version",
                        hint=f"See GET /v1/endpoints/{name}/versions.",
                    )
                _set(connection, found.id, version=version)
            if enabled is not None:
                _set(connection, found.id, enabled=int(enabled))
        return self.get(name)

    def delete(self, name: str) -> None:
        """Raises NotFound. What it spent stays in the ledger."""
        found = self.get(name)
        with self._changing() as connection:
            canaries.drop(connection, found.id)
            connection.execute(delete(_versions).where(_versions.c.endpoint_id == found.id))
            connection.execute(delete(_endpoints).where(_endpoints.c.id == found.id))


def _source(connection: Connection, job_id: str, checkpoint_id: str) -> str:
    """The connection that the checkpoint's job asks."""
    c = _checkpoints.c
    query = (
        select(c.job_id, _jobs.c.connection_id)
        .join(_jobs, _jobs.c.id == c.job_id)
        .where(c.id == checkpoint_id, c.kind == "program")
    )
    row = connection.execute(query).first()
    if row is None:
        raise NotFound(f"There is no checkpoint {checkpoint_id!r}.", param="checkpoint_id")
    if row[0] != job_id:
        raise BadRequest(
            f"Checkpoint {checkpoint_id!r} is of job {row[0]!r}.",
            param="checkpoint_id",
            hint=f"See GET /v1/jobs/{job_id}/checkpoints.",
        )
    return row[1]


def _add(
    connection: Connection, ident: str, version: int, job_id: str, checkpoint_id: str, source: str
) -> None:
    row = {"endpoint_id": ident, "version": version, "job_id": job_id, "checkpoint_id": checkpoint_id}
    connection.execute(insert(_versions).values(connection_id=source, created_at=now(connection), **row))


def _set(connection: Connection, ident: str, **values: int) -> None:
    connection.execute(update(_endpoints).where(_endpoints.c.id == ident).values(values))


def _live(connection: Connection, endpoint: RowMapping) -> VersionRecord:
    c = _versions.c
    query = select(_versions).where(c.endpoint_id == endpoint["id"], c.version == endpoint["version"])
    return _version(connection.execute(query).mappings().one())


def _record(connection: Connection, row: RowMapping) -> EndpointRecord:
    shown = {name: row[name] for name in ("id", "name", "version", "created_at")}
    return EndpointRecord(enabled=bool(row["enabled"]), live=_live(connection, row), **shown)


def _version(row: RowMapping) -> VersionRecord:
    return VersionRecord(**{name: row[name] for name in VersionRecord.__dataclass_fields__})
