"""First answers to requests with an Idempotency-Key, for a day; sealed: one may show a new key."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, delete, select, update

from app.errors import BadRequest, Conflict
from app.storage import tables
from app.storage.answers import insert_ignore
from app.storage.database import now, read, write
from app.storage.secrets import Vault

_KEPT = 86_400.0  # seconds an answer is replayed
_STUCK = 900.0  # after so long a request in progress counts as lost with its process
_idempotency = tables.idempotency


@dataclass(frozen=True)
class StoredAnswer:
    status: int
    headers: dict[str, str]
    body: bytes


class Idempotency:
    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault

    def begin(self, caller: str, key: str, fingerprint: str) -> StoredAnswer | None:
        """None: this request is the first, go on. Raises BadRequest `idempotency_mismatch` for another
        request under the same key, Conflict `idempotency_in_progress`."""
        c = _idempotency.c
        mine = (c.caller == caller, c.key == key)
        with write(self._engine) as connection:
            clock = now(connection)
            connection.execute(delete(_idempotency).where(c.created_at < clock - _KEPT))
            lost = (c.status.is_(None), c.created_at < clock - _STUCK)
            connection.execute(delete(_idempotency).where(*mine, *lost))
            row = {"caller": caller, "key": key, "fingerprint": fingerprint, "created_at": clock}
            fresh = insert_ignore(connection, _idempotency).values(row).returning(c.key)
            if connection.execute(fresh).scalar() is not None:
                return None
            stored = connection.execute(select(_idempotency).where(*mine)).mappings().one()
        if stored["fingerprint"] != fingerprint:
            raise BadRequest(
                "The Idempotency-Key was used for another request.",
                code="idempotency_mismatch",
                param="Idempotency-Key",
                hint="Use a new key for a new request.",
            )
        if stored["status"] is None:
            raise Conflict(
                "The first request with this Idempotency-Key is still in progress.",
                code="idempotency_in_progress",
                hint="Wait a moment and ask again.",
            )
        return StoredAnswer(stored["status"], stored["headers"], self._vault.open(stored["body"]))

    def finish(self, caller: str, key: str, answer: StoredAnswer) -> None:
        """Keep the answer for replay."""
        c = _idempotency.c
        values = {"status": answer.status, "headers": answer.headers, "body": self._vault.seal(answer.body)}
        with write(self._engine) as connection:
            connection.execute(update(_idempotency).where(c.caller == caller, c.key == key).values(values))

    def release(self, caller: str, key: str) -> None:
        """Nothing came of the request: the key may be used again."""
        c = _idempotency.c
        with write(self._engine) as connection:
            connection.execute(
                delete(_idempotency).where(c.caller == caller, c.key == key, c.status.is_(None))
            )

    def reseal(self) -> int:
        """Seal every kept answer with the vault's first key. Returns how many."""
        c, count = _idempotency.c, 0
        with write(self._engine) as connection:
            kept = select(c.caller, c.key, c.body).where(c.body.is_not(None)).with_for_update()
            for caller, key, body in connection.execute(kept).all():
                mine = update(_idempotency).where(c.caller == caller, c.key == key)
                connection.execute(mine.values(body=self._vault.rotate(body)))
                count += 1
        return count

    def pending(self) -> int:
        """Requests in progress."""
        query = select(_idempotency.c.key).where(_idempotency.c.status.is_(None))
        with read(self._engine) as connection:
            return len(connection.execute(query).all())
