"""One rate per credential, shared by all workers: GCRA in one row, on the database's clock.

The row holds the time before which no further request may leave. Taking n slots moves it by n intervals in
one UPDATE. A process that uses its slots up in time takes more at once, up to a quarter of a second's worth,
shortly before it needs them, and hands them out from memory, and fewer where others stand in line: who holds
many slots while others hold the places of the account loses them. Slots whose time has passed are lost, never
saved up: requests cannot bunch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Connection, Engine, Float, bindparam, func, update

from app.storage import tables
from app.storage.answers import insert_ignore
from app.storage.database import now, write
from app.storage.statement import Statement

_USE = 0.985  # of the limit: the rest is room for slots used late and for jitter on the way
_EXCESS = 1.02  # of the limit: what no second may pass
_JITTER = 0.01  # seconds left to the way
_LEASE_SECONDS = 0.25
_AHEAD = 3  # slots left when the next ones are taken
_LEAST_SECONDS = 0.02  # of slots that a process takes at once where others stand in line
_FOREIGN = 0.005  # seconds between our last slot and the next, beyond half a slot: others stand in line

_rates = tables.rates
_wait, _step = (bindparam(name, type_=Float) for name in ("wait", "step"))
_clock = func.extract("epoch", func.clock_timestamp())  # read again after the row lock is ours
_later = {
    "sqlite": func.max(_rates.c.arrival, bindparam("now", type_=Float) + _wait),
    "postgresql": func.greatest(_rates.c.arrival, _clock + _wait),
}
_MOVE = Statement(
    {
        name: update(_rates)
        .where(_rates.c.credential == bindparam("row"))
        .values(arrival=later + _step)
        .returning(_rates.c.arrival)
        for name, later in _later.items()
    }
)


@dataclass
class _Lease:
    """Slots of one credential held by this process, on the monotonic clock."""

    next: float = 0.0
    interval: float = 0.0
    grace: float = 0.0  # seconds a slot stays usable after its time
    left: int = 0
    size: int = 1  # slots to take next time
    after: tuple[float, float, int] | None = None  # first, interval and number of the slots taken ahead

    def extend(self, first: float, interval: float) -> None:
        """`size` slots from `first` on were taken ahead. The next time it may be twice as many, or half of
        them where others took some meanwhile: all who stand in line get the same."""
        ours = max(time.monotonic(), self.next + self.left * self.interval)
        self.after = first, interval, self.size
        if first - ours > max(0.5 * interval, _FOREIGN):
            self.size = max(1, int(_LEAST_SECONDS / interval), self.size // 2)
        else:
            self.size = max(1, min(int(_LEASE_SECONDS / interval), 2 * self.size))

    def low(self) -> bool:
        """Time to take more: what is left covers the time of the transaction that takes them."""
        return self.after is None and self.left <= min(_AHEAD, self.size // 2)

    def take(self, clock: float) -> float | None:
        """Seconds until the next usable slot, or None when there is none."""
        wait = self._take(clock)
        if wait is None and self.after is not None:
            (self.next, self.interval, self.left), self.after = self.after, None
            wait = self._take(clock)
        return wait

    def _take(self, clock: float) -> float | None:
        late = clock - self.grace - self.next
        if self.left and late > 0:
            lost = min(self.left, int(late / self.interval) + 1)
            self.left -= lost
            self.next += lost * self.interval
            self.size = max(1, self.size // 2)  # we do not keep up: leave slots to others
        if not self.left:
            return None
        wait = self.next - clock
        self.left -= 1
        self.next += self.interval
        return max(0.0, wait)


class Rates:
    """All rates of one database. Methods block (at most one short transaction); any thread may call them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._leases: dict[str, _Lease] = {}
        self._lock = Lock()

    def take(self, credential: str) -> float | None:
        """`acquire` without blocking: from the slots held already; None when there is none, or another thread
        is taking some."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            lease = self._leases.get(credential)
            return None if lease is None or lease.low() else lease.take(time.monotonic())
        finally:
            self._lock.release()

    def acquire(self, credential: str, requests_per_second: float) -> float:
        """Take one slot; returns the seconds to wait before sending. Raises Unusable."""
        interval = 1.0 / (requests_per_second * _USE)
        with self._lock:
            lease = self._leases.setdefault(credential, _Lease())
            while True:
                if lease.low():
                    first = self._lease(credential, lease.size, interval)
                    lease.grace = self.grace(requests_per_second)
                    lease.extend(first, interval)
                if (wait := lease.take(time.monotonic())) is not None:
                    return wait

    def grace(self, requests_per_second: float) -> float:
        """How late a slot may be used, in seconds: a second that starts with the late one holds no more than
        is allowed."""
        allowed, interval = int(_EXCESS * requests_per_second), 1.0 / (requests_per_second * _USE)
        return max(_JITTER, allowed * interval - 1.0 - _JITTER)

    def postpone(self, credential: str, seconds: float) -> None:
        """No new slot of this credential before now + `seconds`, for any worker. Raises Unusable."""
        with self._lock:
            self._leases.pop(credential, None)
            with write(self._engine, brief=True) as connection:
                self._move(connection, credential, seconds, 0.0)

    def _lease(self, credential: str, slots: int, interval: float) -> float:
        """Take `slots` slots; the time of the first on this process's monotonic clock."""
        with write(self._engine, brief=True) as connection:
            arrival = self._move(connection, credential, 0.0, slots * interval)
            ahead = arrival - slots * interval - now(connection)
            return time.monotonic() + max(0.0, ahead)

    def _move(self, connection: Connection, credential: str, wait: float, step: float) -> float:
        """arrival = max(arrival, now + wait) + step; the new arrival."""
        given: dict[str, object] = {"row": credential, "wait": wait, "step": step}
        if connection.dialect.name == "sqlite":  # the write lock is ours since BEGIN
            given["now"] = now(connection)
        moved = _MOVE.rows(connection, **given)
        if not moved:
            connection.execute(insert_ignore(connection, _rates), {"credential": credential, "arrival": 0.0})
            moved = _MOVE.rows(connection, **given)
        return float(moved[0][0])
