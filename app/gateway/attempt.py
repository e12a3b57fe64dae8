"""The two halves of one HTTP request: intent before it, settlement after."""

from __future__ import annotations

import asyncio
import random
import time
from asyncio import Event
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from app.contracts import Outcome, Reply, Reserve, Settle, WireReply, WireRequest
from app.errors import Crowded, ProviderError, Rejected, ReplyInvalid, Taken, Unusable
from app.gateway.encoding import key
from app.gateway.faults import crash_point

if TYPE_CHECKING:
    from app.gateway.query import Gateway

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Row = NDArray[np.float32]
SMALL = 2**20  # bytes up to which work is done in the event loop: a hop to a thread and back costs more
_REQUEST_IDS = (
    "x-request-id", "request-id", "x-amzn-requestid", "apim-request-id", "x-ms-request-id",
    "x-amzn-trace-id", "x-cloud-trace-context", "cf-ray",
)  # fmt: skip
_LOOK = (0.05, 0.15)  # seconds between looks for a place among the account's requests
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
    fresh: bytes = b""  # not empty: past the cache, under keys that nobody asks again
    hurry: Event = field(default_factory=Event)  # set: do not wait for a database that is away


@dataclass(frozen=True)
class Settled:
    """What a request brought. `error`: the whole request failed. `change`: (old, new) model version."""

    spent: int
    outcomes: Sequence[Outcome] = ()
    rows: Mapping[int, Row] = field(default_factory=dict[int, Row])
    error: Exception | None = None
    change: tuple[str, str] | None = None


async def _inline(g: Gateway, size: int, call: Callable[[Unpack[Ts]], T], *given: *Ts) -> T:
    """A pure call on `size` bytes, here where it is short."""
    return call(*given) if size <= SMALL else await g.blocking(call, *given)


async def prepare(g: Gateway, items: Sequence[Item], wish: Wish, retried: bool) -> tuple[WireRequest, int]:
    """The request's bytes, and the id of its committed intent. Raises BudgetExhausted, Taken, Crowded,
    Unusable, and StaleFence or Interrupted when the job is not to go on here."""
    pngs = [item.png for item in items]
    request = await _inline(g, sum(map(len, pngs)), g.account.provider.request, pngs)
    intent = Reserve(
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
    attempt = await asyncio.wrap_future(g.ledger.submit(intent))
    crash_point("after_intent")
    if items[0].version == "" and await g.blocking(g.model.known):  # answers are under other keys since now
        await close(g, attempt, wish, len(items), None, sent=False)
        raise Taken(frozenset())
    return request, attempt


async def in_turn(
    g: Gateway, items: Sequence[Item], wish: Wish, retried: bool, rest: Callable[[float], Awaitable[None]]
) -> tuple[WireRequest, int]:
    """`prepare`, again and again while other processes have as many requests under way as are allowed; `rest`
    sleeps between. Raises Unusable where somebody waits for a prediction, and has waited long enough.

    Those that wait only look, one of a gateway at a time: an attempt would take the lock that all need who
    are under way."""
    began, account = time.monotonic(), g.account.connection_id
    if not g.turn.locked():
        with suppress(Crowded):
            return await prepare(g, items, wish, retried)
    async with g.turn:
        while True:
            if await g.blocking(g.ledger.under_way, account) < g.at_once:
                with suppress(Crowded):
                    return await prepare(g, items, wish, retried)
            if g.fence == 0 and time.monotonic() - began > g.policy.patience:
                raise Unusable(
                    f"{g.at_once} requests of this connection are under way, as many as it allows.",
                    code="connection_busy",
                    hint="Try again soon, or raise the connection's concurrency if it may be.",
                )
            await rest(random.uniform(*_LOOK))


def refused(g: Gateway, item: Item, side: int) -> Rejected | None:
    """Why the provider would refuse the image of `side` pixels: known before a byte is sent."""
    info = g.account.provider.info
    if len(item.png) > info.max_image_bytes:
        return Rejected(
            f"An image of {len(item.png)} bytes is over the provider's {info.max_image_bytes}.",
            hint="Ask for a smaller input_size, or a compressing encoder.",
        )
    if side < info.min_side:
        return Rejected(f"An image side of {side} is below the provider's {info.min_side} pixels.")
    return None


async def conclude(g: Gateway, attempt: int, wish: Wish, items: Sequence[Item], wire: WireReply) -> Settled:
    """Translate the reply; store its answers and settle it in one transaction. Raises Unusable when the
    database stays away."""
    try:
        reply = await _inline(g, len(wire.body), g.account.provider.reply, wire, len(items))
        if len(reply.outcomes) != len(items):
            raise ReplyInvalid(f"{len(reply.outcomes)} answers to {len(items)} images.")
        rows = _rows(g, items, reply) if g.model.knows(reply) else await g.blocking(_rows, g, items, reply)
    except Exception as error:  # also a fault of the adapter: the request was sent, so it is settled
        if isinstance(error, ProviderError):
            error.http_status = error.http_status or wire.status
            error.request_id = error.request_id or _request_id(wire)
        return Settled(await close(g, attempt, wish, len(items), error), error=error)
    crash_point("after_answer")
    errors = [outcome for outcome in reply.outcomes if isinstance(outcome, ProviderError)]
    for error in errors:
        error.http_status = error.http_status or wire.status
    unknown = sum(error.billed is None for error in errors)
    billed = len(rows) + sum(error.billed is True for error in errors)
    if reply.billed is not None:
        billed, unknown = min(max(reply.billed, 0), len(items)), 0  # what was reserved is the most
    change = None
    if rows and reply.version not in ("", g.model.version):  # before the keys are free for others
        change = await g.blocking(g.model.answered_by, reply.version)
    settlement = Settle(
        attempt,
        _answers(g, items, reply, rows),
        billed=billed,
        unknown=unknown,
        outcome="partial" if errors else "answered",
        http_status=wire.status,
        request_id=reply.request_id or _request_id(wire),
        code=errors[0].code if errors else None,
        model_version=reply.version or None,
    )
    await _settle(g, wish, settlement)
    return Settled(billed + unknown, reply.outcomes, rows, change=change)


def _rows(g: Gateway, items: Sequence[Item], reply: Reply) -> dict[int, Row]:
    return {
        item.index: g.model.row(outcome)
        for item, outcome in zip(items, reply.outcomes, strict=True)
        if not isinstance(outcome, ProviderError)
    }


def _request_id(wire: WireReply) -> str | None:
    """What the provider, or a proxy before it, calls this request: also where the body cannot be read."""
    return next((wire.headers[name] for name in _REQUEST_IDS if name in wire.headers), None)


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


async def close(
    g: Gateway, attempt: int, wish: Wish, images: int, error: BaseException | None, sent: bool = True
) -> int:
    """Settle a request that brought no answer; returns the queries spent. Raises Unusable."""
    known = error if isinstance(error, ProviderError) else None
    verdict = False if not sent else known.billed if known is not None else None
    billed = images if verdict is True else 0
    unknown = images if verdict is None else 0
    settlement = Settle(
        attempt,
        (),
        billed=billed,
        unknown=unknown,
        outcome="answered" if billed else "unknown" if unknown else "released",
        http_status=known.http_status if known else None,
        request_id=known.request_id if known else None,
        code=known.code if known else "not_sent" if not sent else "internal_error",
    )
    await _settle(g, wish, settlement)
    return billed + unknown


async def _settle(g: Gateway, wish: Wish, settlement: Settle) -> None:
    """Settle, and where the database is full, locked or away, again until it is back: the answers are paid.
    Raises Unusable after PATIENCE seconds, or at once in a hurry."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            await asyncio.wrap_future(g.ledger.submit(settlement))
            return
        except Unusable:
            if time.monotonic() > until or wish.hurry.is_set():
                raise
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await wish.hurry.wait()
