"""API keys: 256 random bits shown once, kept as SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, RowMapping, func, insert, select, update

from app.errors import NotFound
from app.storage import ids, tables
from app.storage.database import now, read, write

SCOPES = ("read", "write", "spend", "predict", "admin")
_PREFIX = "rk_"
_SEEN_EVERY = 60.0  # seconds: last use is written at most so often
_keys = tables.keys


@dataclass(frozen=True)
class KeyRecord:
    """`admin` stands for every scope."""

    id: str
    name: str
    last4: str
    scopes: tuple[str, ...]
    created_at: float
    last_used_at: float | None
    revoked_at: float | None

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


class Keys:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, name: str, scopes: Sequence[str]) -> tuple[KeyRecord, str]:
        """The record and the key itself, which is never to be seen again."""
        ident, key = ids.new("key_"), _PREFIX + secrets.token_urlsafe(32)
        row = {"id": ident, "name": name, "hash": _hash(key), "last4": key[-4:], "scopes": list(scopes)}
        with write(self._engine) as connection:
            connection.execute(insert(_keys).values(created_at=now(connection), **row))
        return self.get(ident), key

    def ensure_first(self) -> str | None:
        """An admin key when no key is valid: to be printed once. None otherwise."""
        with read(self._engine) as connection:
            valid = select(func.count()).where(_keys.c.revoked_at.is_(None))
            if connection.execute(valid).scalar_one():
                return None
        return self.create("first admin key", SCOPES)[1]

    def verify(self, key: str) -> KeyRecord | None:
        """The record of a valid key; notes that it was used."""
        c = _keys.c
        with read(self._engine) as connection:
            query = select(_keys).where(c.hash == _hash(key), c.revoked_at.is_(None))
            row = connection.execute(query).mappings().first()
            clock = now(connection)
        if row is None:
            return None
        if row["last_used_at"] is None or clock - row["last_used_at"] > _SEEN_EVERY:
            with write(self._engine) as connection:
                connection.execute(update(_keys).where(c.id == row["id"]).values(last_used_at=clock))
        return _record(row)

    def get(self, ident: str) -> KeyRecord:
        """Raises NotFound."""
        with read(self._engine) as connection:
            row = connection.execute(select(_keys).where(_keys.c.id == ident)).mappings().first()
        if row is None:
            raise NotFound(f"There is no key {ident!r}.")
        return _record(row)

    def list(self, after: str | None = None, limit: int = 20) -> list[KeyRecord]:
        """Newest first, revoked ones included; ids below `after`."""
        query = select(_keys).order_by(_keys.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(_keys.c.id < after)
        with read(self._engine) as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def revoke(self, ident: str) -> None:
        """Raises NotFound."""
        self.get(ident)
        with write(self._engine) as connection:
            which = (_keys.c.id == ident, _keys.c.revoked_at.is_(None))
            connection.execute(update(_keys).where(*which).values(revoked_at=now(connection)))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _record(row: RowMapping) -> KeyRecord:
    names = ("id", "name", "last4", "created_at", "last_used_at", "revoked_at")
    return KeyRecord(scopes=tuple(row["scopes"]), **{name: row[name] for name in names})
