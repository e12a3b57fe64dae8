"""Book-keeping inside one transaction: a group of reservations and settlements against locked budget rows.

Every row a group touches is locked first, attempts before budgets and each in one order, so that groups of
several processes cannot deadlock; what is read is then true until the commit, and the caps are checked on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, literal_column, select, update

from app.contracts import Reserve, Settle
from app.errors import BudgetExhausted, Crowded, Interrupted, NotFound, StaleFence
from app.storage import answers as stored
from app.storage import claims, tables
from app.storage.database import now
from app.storage.statement import Statement

COUNTERS = (
    "spent", "reserved", "queries_spent", "queries_reserved",
    "unknown_queries", "cached_queries", "retried_queries",
)  # fmt: skip
_budgets, _attempts = tables.budgets, tables.attempts
OPEN = _attempts.c.outcome == literal_column("'open'")  # no parameter: the partial index must be seen to fit
_ADD = Statement(
    update(_budgets)
    .where(_budgets.c.scope == bindparam("row"))
    .values({name: _budgets.c[name] + bindparam(f"add_{name}") for name in COUNTERS})
)
_CLOSE = Statement(
    update(_attempts)
    .where(_attempts.c.id == bindparam("row"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("outcome", "billed", "http_status", "request_id", "code", "model_version", "done_at")
        }
    )
)

_LOCK_ATTEMPTS = Statement(
    select(
        *(_attempts.c[name] for name in ("id", "scope", "connection_id", "images", "price_micros", "payer"))
    )
    .where(_attempts.c.id.in_(bindparam("ids", expanding=True)), OPEN)
    .order_by(_attempts.c.id)
    .with_for_update()
)
_LOCK_BUDGETS = (
    select(_budgets)
    .where(_budgets.c.scope.in_(bindparam("scopes", expanding=True)))
    .order_by(_budgets.c.scope)
    .with_for_update()
)
_TIMED = Statement(  # the clock comes along where asking for it would be a way to the server, rows locked
    {
        "sqlite": _LOCK_BUDGETS,
        "postgresql": _LOCK_BUDGETS.add_columns(func.extract("epoch", func.clock_timestamp()).label("clock")),
    }
)
_HOLDERS = Statement(
    select(*(tables.jobs.c[name] for name in ("id", "fence", "want")))
    .where(tables.jobs.c.id.in_(bindparam("scopes", expanding=True)))
    .order_by(tables.jobs.c.id)
    .with_for_update(read=True)
)
_UNDER_WAY = Statement(
    select(_attempts.c.connection_id, func.count())
    .where(OPEN, _attempts.c.connection_id.in_(bindparam("accounts", expanding=True)))
    .group_by(_attempts.c.connection_id)
)
_INTENTS = Statement(insert(_attempts).returning(_attempts.c.id))


class Unopened(Exception):
    """Accounts or keys have no budget row yet: nothing was done."""

    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__(scopes)
        self.scopes = scopes


def commit(connection: Connection, group: Sequence[Reserve | Settle]) -> list[int | Exception]:
    """Do a group in its order. One result per operation: the new attempt's id or the refusal of a
    reservation; 1 for a settlement that closed its attempt, 0 for one that came late. Raises Unopened."""
    reserves = [op for op in group if isinstance(op, Reserve)]
    settles = [op for op in group if isinstance(op, Settle)]
    attempts = _lock_attempts(connection, [op.attempt_id for op in settles])
    budgets = _lock_all(connection, reserves, attempts)
    before = {scope: dict(row) for scope, row in budgets.items()}
    clock = _clock(connection, budgets)
    holders = _holders(connection, {op.scope for op in reserves if op.fence})
    at_once = under_way(connection, {op.connection_id for op in reserves if op.at_once})
    taken = claims.taken(connection, [pair for op in reserves for pair in op.keys], clock)
    results: list[int | Exception] = []
    lines: dict[int, dict[str, Any]] = {}  # new attempts by their place in the group
    closed: list[dict[str, Any]] = []
    for op in group:
        if isinstance(op, Settle):
            row = attempts.pop(op.attempt_id, None)
            if row is not None:
                at_once[row["connection_id"]] -= 1
                closed.append(_settle(budgets, row, op, clock))
            taken.answered |= {key for key, _ in op.answers}
            results.append(int(row is not None))
            continue
        op = _with_payer(budgets, op)
        refusal = _stopped(holders, op) or taken.refusal(op.keys) or _refusal(budgets, op)
        if refusal is None and 0 < op.at_once <= at_once[op.connection_id]:
            refusal = Crowded()
        if refusal is not None:
            results.append(refusal)
        else:
            lines[len(results)] = _reserve(budgets, op, clock)
            at_once[op.connection_id] += 1
            taken.claimed |= {claim for claim, _ in op.keys}
            results.append(0)
    add(connection, _changes(before, budgets))
    _CLOSE.each(connection, closed)
    stored.insert(connection, [pair for op in settles for pair in op.answers])
    claims.release(connection, [line["row"] for line in closed])
    claimed: list[tuple[bytes, int]] = []
    for place, attempt_id in zip(lines, _INTENTS.each(connection, list(lines.values())), strict=True):
        results[place] = attempt_id
        op = group[place]
        claimed += [(claim, attempt_id) for claim, _ in op.keys] if isinstance(op, Reserve) else []
    claims.claim(connection, claimed)
    return results


def _lock_attempts(connection: Connection, ids: list[int]) -> dict[int, dict[str, Any]]:
    """Those of `ids` that are open."""
    if not ids:
        return {}
    return {row["id"]: row for row in _LOCK_ATTEMPTS.dicts(connection, ids=ids)}


def _lock_all(
    connection: Connection, reserves: Sequence[Reserve], attempts: Mapping[int, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Every budget row that a group charges: scopes and accounts, then payers."""
    accounts = {op.connection_id for op in reserves}
    scopes = accounts | {op.scope for op in reserves}
    scopes |= {row[column] for row in attempts.values() for column in ("scope", "connection_id")}
    budgets = _lock_or_open(connection, scopes, accounts)
    payers = {payer for op in reserves if (payer := _with_payer(budgets, op).payer)}
    payers |= {row["payer"] for row in attempts.values() if row["payer"]}
    if payers:  # a key's id sorts after every other scope: the one order of locks holds
        budgets |= _lock_or_open(connection, payers, payers)
    return budgets


def _lock_or_open(
    connection: Connection, scopes: set[str], wanted: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """The rows of `scopes`. Raises Unopened where some of `wanted` (accounts, keys) are missing: to open
    them here would be to lock them out of order."""
    budgets = {row["scope"]: row for row in _TIMED.dicts(connection, scopes=list(scopes))} if scopes else {}
    if missing := sorted(set(wanted) - budgets.keys()):
        raise Unopened(missing)
    return budgets


def _clock(connection: Connection, budgets: Mapping[str, dict[str, Any]]) -> float:
    """The time when the locks were asked for, UTC epoch seconds."""
    known = [row["clock"] for row in budgets.values() if "clock" in row]
    return float(max(known)) if known else now(connection)


def _holders(connection: Connection, scopes: set[str]) -> dict[str, tuple[int, str]]:
    """Fence and `want` of those scopes that are jobs; they stay as they are until the commit."""
    if not scopes:
        return {}
    return {ident: (fence, want) for ident, fence, want in _HOLDERS.rows(connection, scopes=sorted(scopes))}


def under_way(connection: Connection, accounts: set[str]) -> Counter[str]:
    """Open attempts of each account, whoever made them; a lock on its budget row keeps them so."""
    if not accounts:
        return Counter()
    return Counter(dict(_UNDER_WAY.rows(connection, accounts=sorted(accounts))))


def _stopped(holders: Mapping[str, tuple[int, str]], op: Reserve) -> Exception | None:
    """Why the worker behind `op` may spend nothing for its job any more, or None."""
    fence, want = holders.get(op.scope, (op.fence, "run"))
    if fence != op.fence:
        return StaleFence(op.scope)
    return Interrupted(op.scope) if want != "run" else None


def _refusal(budgets: Mapping[str, dict[str, Any]], op: Reserve) -> Exception | None:
    """Why `op` may not be sent, or None."""
    for scope in _charged(op.scope, op.connection_id, op.payer):
        row = budgets.get(scope)
        if row is None:
            return NotFound(f"Nothing called {scope} has a budget.")
        own = scope == op.scope
        money, queries = op.images * op.price_micros, op.images
        left = _left(row["cap"], row["spent"] + row["reserved"], op.keep_micros if own else 0)
        if left is not None and money > left:
            return _too_dear(scope, scope == op.payer, own, left, money)
        left = _left(
            row["queries_cap"], row["queries_spent"] + row["queries_reserved"], op.keep_queries if own else 0
        )
        if left is not None and queries > left:
            return BudgetExhausted(
                f"{max(left, 0)} queries are left and the next request needs {queries}.",
                reason="max_queries",
                scope=scope,
                hint="Raise the query limit.",
            )
    return None


def _too_dear(scope: str, key: bool, own: bool, left: int, money: int) -> BudgetExhausted:
    whose, code = ("key's budget", "key_budget_exhausted") if key else ("budget", "budget_exhausted")
    hint = "Raise the budget" + ("." if own else " of the key." if key else " of the connection.")
    error = BudgetExhausted(
        f"{max(left, 0) / 1e6:.6f} is left of the {whose}; the next request costs {money / 1e6:.6f}.",
        reason="budget_exhausted",
        scope=scope,
        hint=hint,
    )
    error.code = code
    return error


def _charged(scope: str, connection_id: str, payer: str | None) -> list[str]:
    """The budget rows of an attempt, its own first."""
    return list(dict.fromkeys(row for row in (scope, connection_id, payer) if row))


def _with_payer(budgets: Mapping[str, dict[str, Any]], op: Reserve) -> Reserve:
    """The same with the payer that its scope was opened for, where it names none."""
    payer = op.payer or budgets.get(op.scope, {}).get("payer")
    return op if payer == op.payer else replace(op, payer=payer)


def _left(cap: int | None, taken: int, keep: int) -> int | None:
    return None if cap is None else cap - taken - keep


def _reserve(budgets: Mapping[str, dict[str, Any]], op: Reserve, clock: float) -> dict[str, Any]:
    """Book the reservation in `budgets`; returns the attempt's new row."""
    for scope in _charged(op.scope, op.connection_id, op.payer):
        row = budgets[scope]
        row["reserved"] += op.images * op.price_micros
        row["queries_reserved"] += op.images
        row["retried_queries"] += op.retried
    return {
        "scope": op.scope,
        "connection_id": op.connection_id,
        "fence": op.fence,
        "images": op.images,
        "price_micros": op.price_micros,
        "purpose": op.purpose,
        "outcome": "open",
        "billed": 0,
        "sent_at": clock,
        "payer": op.payer,
    }


def _settle(
    budgets: Mapping[str, dict[str, Any]], attempt: dict[str, Any], op: Settle, clock: float
) -> dict[str, Any]:
    """Book the settlement in `budgets`; returns the attempt's new values."""
    images, price = attempt["images"], attempt["price_micros"]
    spent = min(op.billed + op.unknown, images)  # no settlement may spend more than was reserved
    for scope in _charged(attempt["scope"], attempt["connection_id"], attempt["payer"]):
        row = budgets[scope]
        row["reserved"] -= images * price
        row["queries_reserved"] -= images
        row["spent"] += spent * price
        row["queries_spent"] += spent
        row["unknown_queries"] += min(op.unknown, images)
    return {
        "row": attempt["id"],
        "new_outcome": op.outcome,
        "new_billed": spent,
        "new_http_status": op.http_status,
        "new_request_id": op.request_id and op.request_id[:120],
        "new_code": op.code and op.code[:60],
        "new_model_version": op.model_version and op.model_version[:200],
        "new_done_at": clock,
    }


def _changes(
    before: Mapping[str, dict[str, Any]], after: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, int]]:
    changes: dict[str, dict[str, int]] = {}
    for scope, row in after.items():
        change = {name: row[name] - before[scope][name] for name in COUNTERS}
        if any(change.values()):
            changes[scope] = change
    return changes


def add(connection: Connection, changes: Mapping[str, Mapping[str, int]]) -> None:
    values = [
        {"row": scope, **{f"add_{name}": change.get(name, 0) for name in COUNTERS}}
        for scope, change in sorted(changes.items())
    ]
    _ADD.each(connection, values)


def open_scopes(
    connection: Connection,
    scopes: Sequence[str],
    cap: int | None,
    queries_cap: int | None,
    payer: str | None = None,
) -> None:
    values = [
        {"scope": scope, "cap": cap, "queries_cap": queries_cap, "payer": payer, **dict.fromkeys(COUNTERS, 0)}
        for scope in scopes
    ]
    if values:
        connection.execute(stored.insert_ignore(connection, _budgets), values)
