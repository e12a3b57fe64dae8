"""One ask: from images to answers, with as many requests at once as the account allows.

lookup (thread)   encode, digest, cache          images already answered cost nothing; no thread if quick
chunk             up to max_batch images, while there is room
retry             line              as few as keep the rate in use
                  prepare (thread)  request bytes; reservation and intent committed
                  slot              of the account's rate
                  send              HTTP
                  conclude (thread) translate; answers stored and the attempt settled in one transaction
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import numpy as np

from app.contracts import Images, WireReply, WireRequest
from app.errors import (
    BudgetExhausted,
    Forbidden,
    ModelChanged,
    NotSent,
    ProviderError,
    Rejected,
    ReplyInvalid,
    Taken,
    Unavailable,
)
from app.gateway.account import Answers
from app.gateway.attempt import SMALL, Item, Row, Settled, Wish, close, conclude, in_turn, refused
from app.gateway.encoding import digest, encode, key
from app.gateway.faults import crash_point
from app.gateway.recall import former
from app.gateway.retry import retrying

if TYPE_CHECKING:
    from app.gateway.query import Gateway

_WINDOW = 64  # images encoded and looked up at once: bounds memory
_LOOK = 0.1  # seconds between looks at what others are buying
_OLD = 5.0  # seconds after which a reservation is looked at again before it is sent


class _Stopped(Exception):
    """This ask is over: start nothing new."""


@dataclass
class _Chunk:
    """Images that go out in one request; after it, those still without an answer."""

    items: list[Item]
    seen: int  # images the provider had answered when this chunk started
    asked: bool = False
    parsed: bool = False  # the last request failed for some of its images only


class Round:
    """The state of one ask. All of it is touched by the event loop's thread only."""

    def __init__(self, gateway: Gateway, images: Images, wish: Wish, cache_only: bool) -> None:
        self._g, self._images, self._wish, self._cache_only = gateway, images, wish, cache_only
        self._rows: dict[int, Row] = {}
        self._rejected: dict[int, ProviderError] = {}
        self._first: dict[bytes, int] = {}  # digest -> index of the first image that looks like this
        self._twin: dict[int, int] = {}  # index -> index of the first image that looks the same
        self._elsewhere: list[int] = []  # indices of images that another process is buying, or another job
        self._cached = self._spent = 0
        self._ending = asyncio.Event()  # no new attempt
        self._stopped = asyncio.Event()  # and what has its money but is not sent yet, is not sent
        self._failure: Exception | None = None
        self._buying: dict[bytes, asyncio.Future[None]] = {}  # those of the gateway's that are ours
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> Answers:
        """See `Gateway.ask`."""
        try:
            todo: Sequence[int] = range(len(self._images))
            while len(todo) and self._failure is None:
                todo = await self._pass(todo)
            if self._cached:
                await self._g.blocking(self._g.ledger.count_cached, self._g.scope, self._cached)
        except asyncio.CancelledError:
            self._stop(None)
            await self._abandon()
            raise
        except Exception as error:
            self._stop(error)
            await self._drain()
        finally:
            self._disown(list(self._buying))
        if self._failure is not None:
            raise self._failure
        if max(map(len, self._rows.values()), default=0) > len(self._g.model.labels):
            await self._g.blocking(self._g.model.look)  # answers that another process stored, with new labels
        return self._answers()

    def _answers(self) -> Answers:
        labels = self._g.model.labels
        scores = np.full((len(self._images), len(labels)), np.nan)
        for index, row in self._rows.items():
            scores[index, : len(row)] = row  # a row stored when fewer labels were known: NaN beyond
        rejected = dict(self._rejected)
        for index, twin in self._twin.items():
            scores[index] = scores[twin]
            if twin in self._rejected:
                rejected[index] = self._rejected[twin]
        return Answers(labels, scores, dict(sorted(rejected.items())), self._cached, self._spent)

    # ---------------------------------------------------------------- images to chunks

    async def _pass(self, todo: Sequence[int]) -> Sequence[int]:
        """Look up and buy; returns the images that others were buying meanwhile, to look up again."""
        g = self._g
        batch = max(1, min(g.account.limits.max_batch, g.account.provider.info.max_batch))
        waiting: list[Item] = []
        others: dict[int, asyncio.Future[None]] = {}
        for start in range(0, len(todo), _WINDOW):
            for item in await self._missing(todo[start : start + _WINDOW]):
                if item.digest in g.buying:
                    others[item.index] = g.buying[item.digest]
                else:
                    self._own(item.digest)
                    waiting.append(item)
            while len(waiting) >= batch and self._failure is None:
                await self._start(waiting[:batch])
                del waiting[:batch]
            if self._failure is not None:
                break
        if waiting and self._failure is None:
            await self._start(waiting)
        await self._drain()
        if others and self._failure is None:
            await asyncio.wait(others.values())
        elsewhere, self._elsewhere = self._elsewhere, []
        if elsewhere and self._failure is None:
            await asyncio.sleep(_LOOK)
        return [*others, *elsewhere]

    async def _missing(self, indices: Sequence[int]) -> list[Item]:
        """Those of the images that have no answer yet, one of each look."""
        near = self._g.answers.near and len(indices) * self._images[0].nbytes <= SMALL
        found, items = self._lookup(indices) if near else await self._g.blocking(self._lookup, indices)
        missing: list[Item] = []
        for item in items:
            first = self._first.setdefault(item.digest, item.index)
            if first != item.index:
                self._twin[item.index] = first
                self._cached += not self._cache_only or first in self._rows
            elif item.key in found:
                self._rows[item.index] = found[item.key]
                self._cached += 1
            elif (unfit := refused(self._g, item, min(self._images.shape[1:3]))) is not None:
                self._rejected[item.index] = unfit
            elif not self._cache_only:
                missing.append(item)
        self._progress()
        return missing

    def _lookup(self, indices: Sequence[int]) -> tuple[dict[bytes, Row], list[Item]]:
        """What is known, and all images as items; those that may have to be sent come with their PNG."""
        g = self._g
        own, info, version = g.account.connection_id, g.account.provider.info, g.model.version
        fresh = self._wish.fresh
        marks = [digest(self._images[index], fresh and b"%b%d" % (fresh, index)) for index in indices]
        keys = [key(own, info, version, mark) for mark in marks]
        found = dict(g.answers.get(keys))
        if not fresh:
            left = {its: self._images[i] for i, its in zip(indices, keys, strict=True) if its not in found}
            found |= former(g.answers, own, info, version, left, compressed=g.compressed)
        new = {mark: i for i, mark, its in zip(indices, marks, keys, strict=True) if its not in found}
        pngs: dict[bytes, bytes] = {}
        if new and not self._cache_only:
            files = encode(self._images[list(new.values())], compressed=g.compressed)
            pngs = dict(zip(new, files, strict=True))
        items = [
            Item(index, pngs.get(mark, b""), mark, key(own, info, "", mark), its, version)
            for index, mark, its in zip(indices, marks, keys, strict=True)
        ]
        return found, items

    def _own(self, mark: bytes) -> None:
        self._g.buying[mark] = self._buying[mark] = asyncio.get_running_loop().create_future()

    def _disown(self, marks: Sequence[bytes]) -> None:
        """Answered or not, we are no longer buying these."""
        for mark in marks:
            del self._g.buying[mark]
            self._buying.pop(mark).set_result(None)

    def _progress(self) -> None:
        if self._g.on_progress is not None:
            self._g.on_progress(len(self._rows) + len(self._twin) + len(self._rejected), self._cached)

    # ---------------------------------------------------------------- one chunk

    async def _start(self, items: list[Item]) -> None:
        await self._g.room.acquire()
        task = asyncio.create_task(self._buy(items))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _buy(self, items: list[Item]) -> None:
        try:
            await self._insist(_Chunk(items, self._g.answered))
        except _Stopped:
            pass
        except Exception as error:
            self._stop(error)
        finally:
            self._g.room.release()
            self._disown([item.digest for item in items])
            self._progress()

    async def _insist(self, chunk: _Chunk) -> None:
        """Ask until every image of the chunk is answered or rejected."""
        retry = retrying(self._g.policy, sleep=self._rest, throttled=self._g.pace.postpone)
        try:
            await retry(self._attempt, chunk)
        except Rejected as error:  # the request as a whole: find out which image it was
            if len(chunk.items) == 1:
                self._rejected[chunk.items[0].index] = error
                return
            half = len(chunk.items) // 2
            for part in (chunk.items[:half], chunk.items[half:]):
                await self._insist(_Chunk(part, self._g.answered, asked=True))
        except (Unavailable, ReplyInvalid) as error:
            alone = chunk.parsed or len(chunk.items) == 1
            if not alone or error.http_status is None or self._g.answered == chunk.seen:
                raise
            for item in chunk.items:  # others were answered all the while: it is the image
                self._rejected[item.index] = error

    async def _attempt(self, chunk: _Chunk) -> None:
        """One request; alone while nobody knows whether the provider is up again."""
        if self._g.trial:
            async with self._g.alone:
                if self._g.trial:
                    return await self._once(chunk)
        return await self._once(chunk)

    async def _once(self, chunk: _Chunk) -> None:
        """Raises the request's error, or the error of the first image left without an answer."""
        g = self._g
        async with g.pace.line:
            ready = await self._ready(chunk)
        if ready is None:
            return
        (request, attempt), items = ready, chunk.items
        try:
            reply = await self._send(request)
        except Exception as error:
            sent = not isinstance(error, Forbidden)
            spent = await close(g, attempt, self._wish, len(items), error, sent)
            self._spent += spent
            self._failed(error)
            raise
        self._read_clock(reply)
        crash_point("after_send")
        settled = await conclude(g, attempt, self._wish, items, reply)
        crash_point("after_settle")
        self._spent += settled.spent
        if settled.error is not None:
            self._failed(settled.error)
            raise g.policy.judge(settled.error)
        self._receive(chunk, settled)

    async def _ready(self, chunk: _Chunk) -> tuple[WireRequest, int] | None:
        """A request with its intent, to be sent at once; None: others are buying all its images."""
        g, began = self._g, time.monotonic()
        reserved = await self._reserve(chunk)
        if reserved is None:
            return None
        chunk.asked, attempt = True, reserved[1]
        try:
            await g.pace.slot(self._pause)
            if time.monotonic() - began > _OLD and not await g.blocking(g.ledger.holds, attempt):
                raise NotSent("The reservation was given up while it waited.", code="given_up")
        except BaseException as error:
            await close(g, attempt, self._wish, len(chunk.items), error, False)
            raise
        return reserved

    def _read_clock(self, reply: WireReply) -> None:
        with suppress(ValueError, TypeError):  # none, or no date
            sent = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
            self._g.clock_ahead = sent + 0.5 - time.time()  # the header counts whole seconds

    async def _reserve(self, chunk: _Chunk) -> tuple[WireRequest, int] | None:
        """Request and committed intent for those images of the chunk that nobody else is buying."""
        while chunk.items:
            await self._rest(0)
            chunk.items = [self._keyed(item) for item in chunk.items]
            try:
                return await in_turn(self._g, chunk.items, self._wish, chunk.asked, self._rest)
            except Taken as taken:
                self._elsewhere += [item.index for item in chunk.items if item.claim in taken.keys]
                chunk.items = [item for item in chunk.items if item.claim not in taken.keys]
        return None

    def _keyed(self, item: Item) -> Item:
        """The image under the model's version, once that is known."""
        account, version = self._g.account, self._g.model.version
        if item.version != "" or version == "":
            return item
        mark = key(account.connection_id, account.provider.info, version, item.digest)
        return replace(item, key=mark, version=version)

    def _receive(self, chunk: _Chunk, settled: Settled) -> None:
        """Keep the answers; what is left of the chunk has to be asked again."""
        g, left = self._g, list[tuple[Item, ProviderError]]()
        self._rows |= settled.rows
        if settled.rows:
            g.answered += len(settled.rows)
            g.failures, g.trial = 0, False
        for item, outcome in zip(chunk.items, settled.outcomes, strict=True):
            if isinstance(outcome, Rejected) and not outcome.retryable:
                self._rejected[item.index] = outcome
            elif isinstance(outcome, ProviderError):
                left.append((item, outcome))
        chunk.items = [item for item, _ in left]
        chunk.parsed = bool(left)
        if settled.change is not None and g.model.pinned:
            raise ModelChanged(*settled.change)
        for _, error in left:
            raise g.policy.judge(error)

    async def _send(self, request: WireRequest) -> WireReply:
        task = asyncio.current_task()
        assert task is not None
        self._sending.add(task)
        try:
            return await self._g.client.send(request)
        except asyncio.CancelledError as error:  # by `_abandon`, or the event loop ends
            task.uncancel()
            raise Unavailable("Abandoned while it was under way.", code="abandoned") from error
        finally:
            self._sending.discard(task)

    # ---------------------------------------------------------------- stopping

    def _failed(self, error: Exception) -> None:
        """Count a failure that may have been billed; too many in a row stop the ask."""
        if isinstance(error, ProviderError) and error.retryable and error.billed is None:
            self._g.failures += 1
            many = max(self._g.policy.breaker, 3 * self._g.account.limits.concurrency)
            if self._g.trial or self._g.failures >= many:
                self._stop(error)

    def _stop(self, failure: Exception | None) -> None:
        """Start nothing more; the first failure is the one to report. When the budget is used up, requests
        that have their money still go out: a cap is used to the last query."""
        self._failure = self._failure or failure
        self._ending.set()
        if not isinstance(failure, BudgetExhausted):
            self._stopped.set()

    async def _rest(self, seconds: float) -> None:
        """Between two attempts. Raises _Stopped as soon as there is to be no further one."""
        await _wait(self._ending, seconds)

    async def _pause(self, seconds: float) -> None:
        """Between the reservation and its request."""
        await _wait(self._stopped, seconds)

    async def _drain(self) -> None:
        """Wait for every request under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _abandon(self) -> None:
        """After a cancellation: give replies under way a moment, then count them as unknown."""
        self._wish.hurry.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._g.policy.grace)
        for task in self._sending:
            task.cancel()
        await self._drain()


async def _wait(end: asyncio.Event, seconds: float) -> None:
    """Sleep for `seconds`. Raises _Stopped when `end` is set, at once when it happens."""
    if seconds > 0:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await end.wait()
    if end.is_set():
        raise _Stopped
