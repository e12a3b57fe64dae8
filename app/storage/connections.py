"""Connections: a remote account and one source model, its secret sealed, its labels append-only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, RowMapping, insert, select, update

from app import redaction
from app.contracts import Limits, Price
from app.errors import BadRequest, Conflict, NotFound
from app.storage import ids, tables
from app.storage.booking import open_scopes
from app.storage.database import now, read, write
from app.storage.secrets import Vault

LIVE = ("validating", "queued", "running", "pausing", "paused", "cancelling")  # job states before the end
_LARGEST_SECRET_FILE = 16_384
_connections, _jobs = tables.connections, tables.jobs
_endpoints, _versions = tables.endpoints, tables.endpoint_versions


@dataclass(frozen=True)
class ConnectionRecord:
    """One row. The secret itself is never here; see `Connections.secret`."""

    id: str
    name: str
    provider: str
    base_url: str
    model: dict[str, Any]
    options: dict[str, Any]
    secret_ref: str | None
    secret_last4: str | None
    secret_set: bool
    price: Price
    limits: Limits
    labels: tuple[str, ...]
    model_version: str
    created_at: float


@dataclass(frozen=True)
class NewConnection:
    """What a user gives. At most one of `secret` and `secret_ref`."""

    name: str
    provider: str
    base_url: str
    model: dict[str, Any]
    options: dict[str, Any]
    price: Price
    limits: Limits
    secret: str | None = field(default=None, repr=False)
    secret_ref: str | None = None


class Connections:
    """`environment` looks up the variable of a `secret_ref: "env:NAME"`."""

    def __init__(self, engine: Engine, vault: Vault, environment: Callable[[str], str | None]) -> None:
        self._engine, self._vault, self._environment = engine, vault, environment

    def create(self, new: NewConnection) -> ConnectionRecord:
        ident = ids.new("conn_")
        values = {
            "name": new.name,
            "provider": new.provider,
            "base_url": new.base_url,
            "model": new.model,
            "options": new.options,
            **self._sealed(new.secret, new.secret_ref),
            **_priced(new.price),
            **_limited(new.limits),
        }
        with write(self._engine) as connection:
            connection.execute(
                insert(_connections).values(
                    id=ident, labels=[], model_version="", created_at=now(connection), **values
                )
            )
            open_scopes(connection, [ident], None, None)
        return self.get(ident)

    def get(self, ident: str) -> ConnectionRecord:
        """Raises NotFound."""
        return _record(self._row(ident))

    def list(self, after: str | None = None, limit: int = 20) -> list[ConnectionRecord]:
        """Newest first; ids below `after`."""
        c = _connections.c
        query = select(_connections).where(c.deleted_at.is_(None)).order_by(c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(c.id < after)
        with read(self._engine) as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def currencies(self) -> dict[str, str]:
        """Currency by connection, deleted ones included: their jobs still show what they cost."""
        with read(self._engine) as connection:
            rows = connection.execute(select(_connections.c.id, _connections.c.currency))
            return {row[0]: row[1] for row in rows}

    def update(
        self,
        ident: str,
        *,
        name: str | None = None,
        base_url: str | None = None,
        secret: str | None = None,
        secret_ref: str | None = None,
        price: Price | None = None,
        limits: Limits | None = None,
    ) -> ConnectionRecord:
        """Change what is given. Raises NotFound."""
        values: dict[str, Any] = {
            k: v for k, v in {"name": name, "base_url": base_url}.items() if v is not None
        }
        if secret is not None or secret_ref is not None:
            values |= self._sealed(secret, secret_ref)
        values |= _priced(price) if price else {}
        values |= _limited(limits) if limits else {}
        self.get(ident)
        if values:
            with write(self._engine) as connection:
                connection.execute(update(_connections).where(_connections.c.id == ident).values(values))
        return self.get(ident)

    def delete(self, ident: str) -> None:
        """Raises NotFound, and Conflict while live jobs or endpoints use it."""
        self.get(ident)
        with write(self._engine) as connection:
            job = connection.execute(
                select(_jobs.c.id).where(
                    _jobs.c.connection_id == ident, _jobs.c.status.in_(LIVE), _jobs.c.deleted_at.is_(None)
                )
            ).scalar()
            if job is not None:
                raise Conflict(
                    f"Job {job} uses the connection.", code="in_use", hint="Cancel or finish the job first."
                )
            endpoint = connection.execute(
                select(_endpoints.c.name)
                .join(_versions, _versions.c.endpoint_id == _endpoints.c.id)
                .where(_versions.c.connection_id == ident, _versions.c.version == _endpoints.c.version)
            ).scalar()
            if endpoint is not None:
                raise Conflict(
                    f"Endpoint {endpoint!r} uses the connection.",
                    code="in_use",
                    hint="Delete the endpoint first.",
                )
            gone = {"deleted_at": now(connection), "secret_encrypted": None}
            connection.execute(update(_connections).where(_connections.c.id == ident).values(gone))

    def secret(self, ident: str) -> str:
        """The provider's key in the clear: for a request's headers and nothing else. "" when none was given.

        Raises NotFound, BadRequest `secret_missing` or `secret_unreadable`.
        """
        row = self._row(ident)
        if row["secret_encrypted"] is not None:
            return _remembered(self._vault.open(row["secret_encrypted"].encode()).decode())
        kind, _, where = (row["secret_ref"] or "").partition(":")
        if kind == "env":
            found = self._environment(where)
        elif kind == "file":
            found = _read_secret(Path(where))
        else:
            return ""
        if not found:
            raise BadRequest(
                f"The connection's secret is to come from {row['secret_ref']}, which is not there or empty.",
                code="secret_missing",
                hint="Set it where the service and its workers run, or give the connection a `secret`.",
                param="secret_ref",
            )
        return _remembered(found)

    def reseal(self) -> int:
        """Seal every stored secret with the vault's first key. Returns how many."""
        c = _connections.c
        with write(self._engine) as connection:
            rows = connection.execute(
                select(c.id, c.secret_encrypted).where(c.secret_encrypted.is_not(None)).with_for_update()
            ).all()
            for ident, token in rows:
                sealed = self._vault.rotate(token.encode()).decode()
                connection.execute(update(_connections).where(c.id == ident).values(secret_encrypted=sealed))
        return len(rows)

    def book(self, ident: str) -> LabelBook:
        """The connection's labels and model version. Raises NotFound."""
        self._row(ident, deleted=True)
        return LabelBook(self._engine, ident)

    def _sealed(self, secret: str | None, ref: str | None) -> dict[str, Any]:
        redaction.remember(secret or "")
        return {
            "secret_encrypted": None if secret is None else self._vault.seal(secret.encode()).decode(),
            "secret_ref": ref,
            "secret_last4": secret[-4:] if secret is not None and len(secret) >= 8 else None,
        }

    def _row(self, ident: str, *, deleted: bool = False) -> RowMapping:
        c = _connections.c
        query = select(_connections).where(c.id == ident)
        if not deleted:
            query = query.where(c.deleted_at.is_(None))
        with read(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"There is no connection {ident!r}.", param="connection_id")
        return row


class LabelBook:
    """The column order of a connection's stored answers: labels are added at the end, never moved."""

    def __init__(self, engine: Engine, ident: str) -> None:
        self._engine, self._mine = engine, _connections.c.id == ident

    def labels(self) -> tuple[str, ...]:
        with read(self._engine) as connection:
            return tuple(connection.execute(select(_connections.c.labels).where(self._mine)).scalar_one())

    def extend(self, names: Iterable[str]) -> tuple[str, ...]:
        """Add the names that are new, in the order given; returns all. Safe from several processes."""
        with write(self._engine) as connection:
            query = select(_connections.c.labels).where(self._mine).with_for_update()
            known: list[str] = list(connection.execute(query).scalar_one())
            added = [name for name in dict.fromkeys(names) if name not in set(known)]
            if added:
                known += added
                connection.execute(update(_connections).where(self._mine).values(labels=known))
        return tuple(known)

    def version(self) -> str:
        """The model version answered last; "" before the first answer."""
        with read(self._engine) as connection:
            return connection.execute(select(_connections.c.model_version).where(self._mine)).scalar_one()

    def set_version(self, version: str) -> None:
        with write(self._engine) as connection:
            connection.execute(update(_connections).where(self._mine).values(model_version=version))


def _remembered(secret: str) -> str:
    redaction.remember(secret)
    return secret


def _read_secret(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LARGEST_SECRET_FILE).strip()
    except (OSError, UnicodeDecodeError):
        return None


def _priced(price: Price) -> dict[str, Any]:
    return {"price_micros": price.micros, "currency": price.currency}


def _limited(limits: Limits) -> dict[str, Any]:
    names = ("requests_per_second", "concurrency", "max_batch")
    return {name: getattr(limits, name) for name in names}


def _record(row: RowMapping) -> ConnectionRecord:
    return ConnectionRecord(
        id=row["id"],
        name=row["name"],
        provider=row["provider"],
        base_url=row["base_url"],
        model=row["model"],
        options=row["options"],
        secret_ref=row["secret_ref"],
        secret_last4=row["secret_last4"],
        secret_set=row["secret_encrypted"] is not None or row["secret_ref"] is not None,
        price=Price(row["price_micros"], row["currency"]),
        limits=Limits(row["requests_per_second"], row["concurrency"], row["max_batch"]),
        labels=tuple(row["labels"]),
        model_version=row["model_version"],
        created_at=row["created_at"],
    )
