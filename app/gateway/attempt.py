"""The blocking halves of one HTTP request, run in threads: intent before it, settlement after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.contracts import Outcome, Reply, WireReply, WireRequest
from app.errors import ProviderError, ReplyInvalid, Taken, Unusable
from app.gateway.encoding import key
from app.gateway.faults import crash_point

if TYPE_CHECKING:
    from app.gateway.query import Gateway

Row = NDArray[np.float32]
PATIENCE = 300.0  # seconds that paid answers wait in memory for the database


@dataclass(frozen=True)
class Item:
    """One image to buy."""

    index: int  # in the images asked
    png: bytes
    digest: bytes
    claim: bytes  # the key without a version: what is being bought, whichever version will answer
    key: bytes
    version: str  # the model version that `key` is for


@dataclass(frozen=True)
class Wish:
    """What an ask says of all its requests; see `Gateway.ask`."""

    purpose: str
    keep_micros: int = 0
    keep_queries: int = 0
    payer: str | None = None  # a key's id; None: whose the scope is
    hurry: Event = field(default_factory=Event)  # set: do not wait for a database that is away


@dataclass(frozen=True)
class Settled:
    """What a request brought. `error`: the whole request failed. `change`: (old, new) model version."""

    spent: int
    outcomes: Sequence[Outcome] = ()
    rows: Mapping[int, Row] = field(default_factory=dict[int, Row])
    error: Exception | None = None
    change: tuple[str, str] | None = None


def prepare(g: Gateway, items: Sequence[Item], wish: Wish, retried: bool) -> tuple[WireRequest, int]:
    """The request's bytes, and the id of its committed intent. Raises BudgetExhausted, Taken, Crowded,
    Unusable, and StaleFence or Interrupted when the job is not to go on here."""
    request = g.account.provider.request([item.png for item in items])
    attempt = g.ledger.reserve(
        g.scope,
        g.account.connection_id,
        fence=g.fence,
        images=len(items),
        price_micros=g.account.price.micros,
        purpose=wish.purpose,
        keep_micros=wish.keep_micros,
        keep_queries=wish.keep_queries,
        retried=len(items) if retried else 0,
        at_once=g.at_once,
        keys=[(item.claim, item.key) for item in items],
        payer=wish.payer,
    )
    crash_point("after_intent")
    if items[0].version == "" and g.model.known():  # answers are under other keys since just now
        close(g, attempt, wish, len(items), None, sent=False)
        raise Taken(frozenset())
    return request, attempt


def conclude(g: Gateway, attempt: int, wish: Wish, items: Sequence[Item], wire: WireReply) -> Settled:
    """Translate the reply; store its answers and settle it in one transaction. Raises Unusable when the
    database stays away."""
    try:
        reply = g.account.provider.reply(wire, len(items))
        if len(reply.outcomes) != len(items):
            raise ReplyInvalid(f"{len(reply.outcomes)} answers to {len(items)} images.")
        rows = {
            item.index: g.model.row(outcome)
            for item, outcome in zip(items, reply.outcomes, strict=True)
            if not isinstance(outcome, ProviderError)
        }
    except Exception as error:  # also a fault of the adapter: the request was sent, so it is settled
        if isinstance(error, ProviderError):
            error.http_status = error.http_status or wire.status
        return Settled(close(g, attempt, wish, len(items), error), error=error)
    crash_point("after_answer")
    errors = [outcome for outcome in reply.outcomes if isinstance(outcome, ProviderError)]
    for error in errors:
        error.http_status = error.http_status or wire.status
    unknown = sum(error.billed is None for error in errors)
    billed = len(rows) + sum(error.billed is True for error in errors)
    change = g.model.answered_by(reply.version) if rows else None  # before the keys are free for others
    _settle(
        g,
        attempt,
        wish,
        _answers(g, items, reply, rows),
        billed=billed,
        unknown=unknown,
        outcome="partial" if errors else "answered",
        http_status=wire.status,
        request_id=reply.request_id,
        code=errors[0].code if errors else None,
    )
    return Settled(billed + unknown, reply.outcomes, rows, change=change)


def _answers(
    g: Gateway, items: Sequence[Item], reply: Reply, rows: Mapping[int, Row]
) -> list[tuple[bytes, Row]]:
    """Rows under the key of the version that answered."""
    account, answers = g.account, list[tuple[bytes, Row]]()
    for item in items:
        if item.index in rows:
            mark = item.key
            if reply.version not in ("", item.version):
                mark = key(account.connection_id, account.provider.info, reply.version, item.digest)
            answers.append((mark, rows[item.index]))
    return answers


def close(
    g: Gateway, attempt: int, wish: Wish, images: int, error: BaseException | None, sent: bool = True
) -> int:
    """Settle a request that brought no answer; returns the queries spent. Raises Unusable."""
    known = error if isinstance(error, ProviderError) else None
    verdict = False if not sent else known.billed if known is not None else None
    billed = images if verdict is True else 0
    unknown = images if verdict is None else 0
    _settle(
        g,
        attempt,
        wish,
        (),
        billed=billed,
        unknown=unknown,
        outcome="answered" if billed else "unknown" if unknown else "released",
        http_status=known.http_status if known else None,
        request_id=known.request_id if known else None,
        code=known.code if known else "not_sent" if not sent else "internal_error",
    )
    return billed + unknown


def _settle(
    g: Gateway,
    attempt: int,
    wish: Wish,
    answers: Sequence[tuple[bytes, Row]],
    *,
    billed: int,
    unknown: int,
    outcome: str,
    http_status: int | None,
    request_id: str | None,
    code: str | None,
) -> None:
    """Settle, and where the database is full, locked or away, again until it is back: the answers are paid.
    Raises Unusable after PATIENCE seconds, or at once in a hurry."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            g.ledger.settle(
                attempt, answers, billed=billed, unknown=unknown, outcome=outcome,
                http_status=http_status, request_id=request_id, code=code,
            )  # fmt: skip
            return
        except Unusable:
            if time.monotonic() > until or wish.hurry.wait(1.0):
                raise
