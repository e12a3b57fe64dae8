"""Webhooks and their deliveries. A delivery is written in the transaction of the event it tells of, and sent
later by whichever process claims it: none is lost with a process, and one may arrive twice."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, delete, insert, select, update

from app.errors import NotFound
from app.storage import ids, tables
from app.storage.database import now, read, write
from app.storage.secrets import Vault

TEST = "webhook.test"
LEASE_SECONDS = 90.0  # a claimed delivery is due again after so long: its sender has died
KEPT_SECONDS = 30 * 86_400.0
_webhooks, _deliveries = tables.webhooks, tables.deliveries


@dataclass(frozen=True)
class WebhookRecord:
    id: str
    name: str
    url: str
    events: tuple[str, ...]
    enabled: bool
    created_at: float
    old_secret_until: float | None  # until then the secret before the last rotation signs too


@dataclass(frozen=True)
class Delivery:
    """`status`: pending | delivered | failed. `next_at`: when it is due, UTC epoch seconds."""

    id: str
    webhook_id: str
    type: str
    payload: dict[str, Any]
    status: str
    attempts: int
    next_at: float
    http_status: int | None
    error: str | None
    created_at: float
    done_at: float | None


class Webhooks:
    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault

    # ---------------------------------------------------------------- users

    def create(self, name: str, url: str, events: Sequence[str]) -> tuple[WebhookRecord, str]:
        """The record, and the secret that signs, which is never to be seen again."""
        ident, secret = ids.new("wh_"), _new_secret()
        values = {"id": ident, "name": name, "url": url, "events": list(events), "enabled": 1}
        sealed = self._vault.seal(secret.encode()).decode()
        with write(self._engine) as connection:
            row = {**values, "secret_encrypted": sealed, "created_at": now(connection)}
            connection.execute(insert(_webhooks).values(row))
        return self.get(ident), secret

    def get(self, ident: str) -> WebhookRecord:
        """Raises NotFound."""
        return _record(self._row(ident)[0])

    def secrets(self, ident: str) -> Sequence[str]:
        """Those that sign now, the newest first. Raises NotFound, BadRequest `secret_unreadable`."""
        row, clock = self._row(ident)
        sealed = [row["secret_encrypted"]]
        if row["old_secret_encrypted"] is not None and row["old_secret_until"] > clock:
            sealed.append(row["old_secret_encrypted"])
        return [self._vault.open(token.encode()).decode() for token in sealed]

    def rotate(self, ident: str, keep_seconds: float) -> tuple[WebhookRecord, str]:
        """The record and a new secret; the old one signs beside it for so long, the one before that no more.
        Raises NotFound."""
        c, secret = _webhooks.c, _new_secret()
        fresh: dict[str, Any] = {"secret_encrypted": self._vault.seal(secret.encode()).decode()}
        self.get(ident)
        with write(self._engine) as connection:
            kept = {
                "old_secret_encrypted": c.secret_encrypted if keep_seconds else None,
                "old_secret_until": now(connection) + keep_seconds if keep_seconds else None,
            }
            connection.execute(update(_webhooks).where(c.id == ident).values(fresh | kept))
        return self.get(ident), secret

    def list(self, after: str | None = None, limit: int = 20) -> list[WebhookRecord]:
        """Newest first; ids below `after`."""
        query = select(_webhooks).order_by(_webhooks.c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(_webhooks.c.id < after)
        with read(self._engine) as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def edit(self, ident: str, values: Mapping[str, Any]) -> WebhookRecord:
        """Change columns. Raises NotFound."""
        self.get(ident)
        if values:
            with write(self._engine) as connection:
                connection.execute(update(_webhooks).where(_webhooks.c.id == ident).values(**values))
        return self.get(ident)

    def delete(self, ident: str) -> None:
        """With its deliveries. Raises NotFound."""
        self.get(ident)
        with write(self._engine) as connection:
            connection.execute(delete(_deliveries).where(_deliveries.c.webhook_id == ident))
            connection.execute(delete(_webhooks).where(_webhooks.c.id == ident))

    def reseal(self) -> int:
        """Seal every secret with the vault's first key. Returns how many."""
        c = _webhooks.c
        with write(self._engine) as connection:
            columns = (c.secret_encrypted, c.old_secret_encrypted)
            rows = connection.execute(select(c.id, *columns).with_for_update()).all()
            for ident, *tokens in rows:
                sealed = [token and self._vault.rotate(token.encode()).decode() for token in tokens]
                values = dict(zip(columns, sealed, strict=True))
                connection.execute(update(_webhooks).where(c.id == ident).values(values))
        return len(rows)

    # ---------------------------------------------------------------- deliveries

    def test(self, ident: str) -> Delivery:
        """A delivery that says nothing but that it arrived. Raises NotFound."""
        self.get(ident)
        with write(self._engine) as connection:
            (made,) = _add(connection, [ident], TEST, {"webhook_id": ident})
        return self.delivery(ident, made)

    def delivery(self, ident: str, delivery_id: str) -> Delivery:
        """Raises NotFound."""
        c = _deliveries.c
        query = select(_deliveries).where(c.id == delivery_id, c.webhook_id == ident)
        with read(self._engine) as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"Webhook {ident!r} has no delivery {delivery_id!r}.", param="delivery_id")
        return Delivery(**row)

    def deliveries(
        self, ident: str, after: str | None = None, limit: int = 20, status: str | None = None
    ) -> list[Delivery]:
        """Newest first; ids below `after`. Raises NotFound."""
        self.get(ident)
        c = _deliveries.c
        query = select(_deliveries).where(c.webhook_id == ident).order_by(c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(c.id < after)
        if status is not None:
            query = query.where(c.status == status)
        with read(self._engine) as connection:
            return [Delivery(**row) for row in connection.execute(query).mappings()]

    def redeliver(self, ident: str, delivery_id: str) -> Delivery:
        """Send it again, under its old id, now. Raises NotFound."""
        self.delivery(ident, delivery_id)
        with write(self._engine) as connection:
            fresh = {"status": "pending", "attempts": 0, "next_at": now(connection), "done_at": None}
            connection.execute(update(_deliveries).where(_deliveries.c.id == delivery_id).values(fresh))
        return self.delivery(ident, delivery_id)

    # ---------------------------------------------------------------- the courier

    def claim(self, most: int) -> list[Delivery]:
        """Deliveries that are due, to be sent by the caller and settled before the lease is over."""
        c = _deliveries.c
        due = select(c.id).join(_webhooks, _webhooks.c.id == c.webhook_id)
        with read(self._engine) as connection:
            clock = now(connection)
            due = due.where(c.status == "pending", c.next_at <= clock, _webhooks.c.enabled == 1)
            if connection.execute(due.limit(1)).first() is None:
                return []
        with write(self._engine) as connection:
            locked = due.order_by(c.next_at).limit(most).with_for_update(of=_deliveries, skip_locked=True)
            chosen = list(connection.execute(locked).scalars())
            taken = {"attempts": c.attempts + 1, "next_at": clock + LEASE_SECONDS}
            statement = update(_deliveries).where(c.id.in_(chosen)).values(taken).returning(_deliveries)
            return [Delivery(**row) for row in connection.execute(statement).mappings()]

    def settle(
        self, sent: Delivery, *, http_status: int | None, error: str | None, again_in: float | None
    ) -> None:
        """What came of a claimed delivery: no error is a delivery; with one it is due again in so many
        seconds, or never. Nothing happens when another has claimed it since."""
        c = _deliveries.c
        status = "delivered" if error is None else "failed" if again_in is None else "pending"
        with write(self._engine) as connection:
            clock = now(connection)
            values = {
                "status": status,
                "http_status": http_status,
                "error": error and error[:300],
                "next_at": clock + (again_in or 0.0),
                "done_at": None if status == "pending" else clock,
            }
            mine = (c.id == sent.id, c.attempts == sent.attempts, c.status == "pending")
            connection.execute(update(_deliveries).where(*mine).values(values))

    def prune(self) -> None:
        """Forget deliveries that were done a month ago, and old secrets that sign no more."""
        c, hook = _deliveries.c, _webhooks.c
        with write(self._engine) as connection:
            clock = now(connection)
            old = clock - KEPT_SECONDS
            connection.execute(delete(_deliveries).where(c.done_at.is_not(None), c.done_at < old))
            none = {"old_secret_encrypted": None, "old_secret_until": None}
            connection.execute(update(_webhooks).where(hook.old_secret_until <= clock).values(none))

    def _row(self, ident: str) -> tuple[RowMapping, float]:
        """The row, and the database's time."""
        with read(self._engine) as connection:
            row = connection.execute(select(_webhooks).where(_webhooks.c.id == ident)).mappings().first()
            if row is None:
                raise NotFound(f"There is no webhook {ident!r}.", param="webhook_id")
            return row, now(connection)


def tell(connection: Connection, type: str, payload: dict[str, Any]) -> None:
    """A delivery to every webhook that wants `type`, in the caller's transaction."""
    c = _webhooks.c
    rows = connection.execute(select(c.id, c.events).where(c.enabled == 1)).all()
    wanted = [ident for ident, events in rows if any(matches(pattern, type) for pattern in events)]
    if wanted:
        _add(connection, wanted, type, payload)


def matches(pattern: str, type: str) -> bool:
    """`job.succeeded`, `job.*` or `*`."""
    return type.startswith(pattern[:-1]) if pattern.endswith("*") else type == pattern


def _add(connection: Connection, webhooks: Sequence[str], type: str, payload: dict[str, Any]) -> list[str]:
    clock = now(connection)
    same: dict[str, Any] = {"type": type, "payload": payload, "status": "pending"}
    same |= {"attempts": 0, "next_at": clock, "created_at": clock}
    made = [ids.new("msg_") for _ in webhooks]
    rows = [{"id": n, "webhook_id": ident, **same} for n, ident in zip(made, webhooks, strict=True)]
    connection.execute(insert(_deliveries), rows)
    return made


def _record(row: RowMapping) -> WebhookRecord:
    return WebhookRecord(
        id=row["id"],
        name=row["name"],
        url=row["url"],
        events=tuple(row["events"]),
        enabled=bool(row["enabled"]),
        created_at=row["created_at"],
        old_secret_until=row["old_secret_until"],
    )


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
