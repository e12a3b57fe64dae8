"""When the next request of a gateway may leave: the account's rate, and the waits its provider asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

from app.contracts import RateLimiter

_EARLY = 0.005  # seconds; who waits for less than that before its slot is not too early
_HELD = 1.0  # seconds; a wait for a slot that is longer is worth telling

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Blocking(Protocol):
    """Runs a blocking call in a thread."""

    def __call__(self, call: Callable[[Unpack[Ts]], T], /, *given: *Ts) -> Awaitable[T]: ...


class Line:
    """Requests of one gateway between their reservation and their slot: as few as keep every slot in use, at
    most `most`. What is reserved takes a place of the account, which other processes need, and which stays
    taken for a while when this one dies."""

    def __init__(self, most: int) -> None:
        self._most, self._width, self._over = most, 1, 0
        self._free = asyncio.Semaphore(1)

    async def __aenter__(self) -> None:
        await self._free.acquire()

    async def __aexit__(self, *_: object) -> None:
        if self._over:
            self._over -= 1
        else:
            self._free.release()

    def waited(self, seconds: float, interval: float) -> None:
        """One of the line waited so long for its slot: not at all is too late, a whole interval too early."""
        if seconds < 0.1 * interval and self._width < self._most:
            self._width += 1
            self._free.release()
        elif seconds > max(0.9 * interval, _EARLY) and self._width > 1:
            self._width -= 1
            self._over += 1


class Pace:
    """Slots of one credential's rate, for a gateway that may have `at_once` requests under way. `held_until`,
    UTC epoch seconds: before it nothing may leave."""

    def __init__(
        self, rates: RateLimiter, credential: str, rate: float, at_once: int, blocking: Blocking
    ) -> None:
        self._rates, self._credential, self._blocking = rates, credential, blocking
        self._rate = rate  # requests a second
        self.line = Line(at_once)
        self._first = asyncio.Lock()  # one request at a time waits: a pause reaches all behind it
        self.held_until = 0.0

    async def slot(self, pause: Callable[[float], Awaitable[None]]) -> None:
        """Return when a request may be sent at once; `pause(seconds)` waits, and may raise to give up. A slot
        that was slept through, on a busy machine say, is lost: sent late it would crowd the next ones."""
        async with self._first:
            await pause(0)
            late = True
            while late:
                wait = self._rates.take(self._credential)
                if wait is None:
                    wait = await self._blocking(self._rates.acquire, self._credential, self._rate)
                self.line.waited(wait, 1.0 / self._rate)
                if wait > _HELD:
                    self.held_until = time.time() + wait
                due = time.monotonic() + wait
                await pause(wait)
                late = time.monotonic() - due > self._rates.grace(self._rate)

    async def postpone(self, seconds: float) -> None:
        """The provider asks everybody to wait."""
        self.held_until = max(self.held_until, time.time() + seconds)
        await self._blocking(self._rates.postpone, self._credential, seconds)
