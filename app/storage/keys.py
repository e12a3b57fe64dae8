"""API keys: 256 random bits shown once, kept as SHA-256; what each may do, how fast, and for how much.

Whatever is bought on behalf of a key is charged to a budget row of the key's own, one for each currency
(`KeyRecord.account`), in the transaction that charges the job or endpoint. So a key's cap holds as exactly as
a job's does, whoever spends at the same time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, func, insert, select, update

from app.contracts import Cost
from app.errors import BadRequest, Conflict, NotFound
from app.storage import ids, tables
from app.storage.answers import insert_ignore
from app.storage.booking import open_scopes
from app.storage.database import now, read, write

SCOPES = ("read", "write", "spend", "predict", "admin")
_PREFIX = "rk_"
_SEEN_EVERY = 60.0  # seconds: last use is written at most so often
_BURST = 1.0  # seconds' worth of requests that may come at once
_keys, _budgets, _rates = tables.keys, tables.budgets, tables.rates


@dataclass(frozen=True)
class KeyLimits:
    """None: no limit. `cap` is micro-units of `currency`, of all that was and will be spent."""

    requests_per_second: float | None = None
    cap: int | None = None
    currency: str | None = None


@dataclass(frozen=True)
class KeyRecord:
    """`admin` stands for every scope. `currency` is that of the key's cap; None: it has none."""

    id: str
    name: str
    last4: str
    scopes: tuple[str, ...]
    created_at: float
    last_used_at: float | None
    revoked_at: float | None
    requests_per_second: float | None = None
    currency: str | None = None

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def account(self, currency: str) -> str | None:
        """The budget row that pays for what is bought in `currency`; None for who has no key. Raises
        BadRequest `currency_mismatch` where the key's cap is in another."""
        if not self.id.startswith("key_"):
            return None
        if self.currency not in (None, currency):
            raise BadRequest(
                f"The key's budget is in {self.currency}, this is paid in {currency}.",
                code="currency_mismatch",
                hint=f"Use a key with a budget in {currency}, or without one.",
            )
        return f"{self.id}:{currency}"


class Keys:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, name: str, scopes: Sequence[str], limits: KeyLimits | None = None
    ) -> tuple[KeyRecord, str]:
        """The record and the key itself, which is never to be seen again."""
        ident, key = ids.new("key_"), _PREFIX + secrets.token_urlsafe(32)
        row = {"id": ident, "name": name, "hash": _hash(key), "last4": key[-4:], "scopes": list(scopes)}
        with write(self._engine) as connection:
            connection.execute(insert(_keys).values(created_at=now(connection), **row))
            _limit(connection, ident, limits or KeyLimits())
        return self.get(ident), key

    def edit(self, ident: str, *, name: str | None = None, limits: KeyLimits | None = None) -> KeyRecord:
        """Change what is given. Raises NotFound, Conflict `cap_below_spent`."""
        self.get(ident)
        with write(self._engine) as connection:
            if name is not None:
                connection.execute(update(_keys).where(_keys.c.id == ident).values(name=name))
            if limits is not None:
                _limit(connection, ident, limits)
        return self.get(ident)

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

    def wait(self, record: KeyRecord) -> float:
        """Take one request of the key's rate, which all processes share: 0.0, or the seconds until there is
        one. GCRA: a second's worth may come at once."""
        rate = record.requests_per_second
        if rate is None:
            return 0.0
        interval = 1.0 / rate
        slack = max(0.0, _BURST - interval)
        mine = _rates.c.credential == record.id
        with write(self._engine) as connection:
            connection.execute(insert_ignore(connection, _rates).values(credential=record.id, arrival=0.0))
            arrival = connection.execute(select(_rates.c.arrival).where(mine).with_for_update()).scalar_one()
            clock = now(connection)
            if arrival > clock + slack:
                return arrival - slack - clock
            connection.execute(update(_rates).where(mine).values(arrival=max(arrival, clock) + interval))
        return 0.0

    def get(self, ident: str) -> KeyRecord:
        """Raises NotFound."""
        with read(self._engine) as connection:
            row = connection.execute(select(_keys).where(_keys.c.id == ident)).mappings().first()
        if row is None:
            raise NotFound(f"There is no key {ident!r}.")
        return _record(row)

    def costs(self, ident: str) -> Mapping[str, Cost]:
        """What was spent on behalf of the key, by currency."""
        with read(self._engine) as connection:
            rows = connection.execute(select(_budgets).where(*_accounts(ident))).mappings().all()
        names = Cost.__dataclass_fields__
        return {row["scope"].partition(":")[2]: Cost(**{name: row[name] for name in names}) for row in rows}

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


def _accounts(ident: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Conditions of a key's budget rows: `key_...:USD` and the like (`;` follows `:`)."""
    return _budgets.c.scope > f"{ident}:", _budgets.c.scope < f"{ident};"


def _limit(connection: Connection, ident: str, limits: KeyLimits) -> None:
    """Set the key's limits. With a cap nothing more is bought in other currencies."""
    c = _budgets.c
    values = {"requests_per_second": limits.requests_per_second, "currency": limits.currency}
    connection.execute(update(_keys).where(_keys.c.id == ident).values(values))
    if limits.cap is None:
        connection.execute(update(_budgets).where(*_accounts(ident)).values(cap=None))
        return
    mine = f"{ident}:{limits.currency}"
    open_scopes(connection, [mine], limits.cap, None)
    taken = connection.execute(select(c.spent + c.reserved).where(c.scope == mine).with_for_update())
    if (least := taken.scalar_one()) > limits.cap:
        raise Conflict(
            "The key's budget is below what is spent or on its way.",
            code="cap_below_spent",
            param="limits.budget",
            hint=f"The least that works now is {least / 1e6:.6f}.",
        )
    connection.execute(update(_budgets).where(c.scope == mine).values(cap=limits.cap))
    others = update(_budgets).where(*_accounts(ident), c.scope != mine)
    connection.execute(others.values(cap=c.spent + c.reserved))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _record(row: RowMapping) -> KeyRecord:
    values: dict[str, Any] = {name: row[name] for name in KeyRecord.__dataclass_fields__}
    values["scopes"] = tuple(row["scopes"])
    return KeyRecord(**values)
