"""The shared rate: never above the limit in any second, nearly all of it used, one pause for everybody."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator

import numpy as np
import pytest

from app.storage.database import migrate, open_engine
from app.storage.rate import Rates

RPS = 100.0


@pytest.fixture
def rates(database_url: str) -> Iterator[Rates]:
    migrate(database_url)
    engine = open_engine(database_url)
    yield Rates(engine)
    engine.dispose()


def _send(url: str, seconds: float, start: multiprocessing.Barrier, sent: multiprocessing.Queue) -> None:
    engine = open_engine(url)
    rates = Rates(engine)
    rates.acquire("warm", RPS)
    start.wait(30)
    times, end = list[float](), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rates.acquire("c", RPS))
        times.append(time.monotonic())
    sent.put(times)
    engine.dispose()


def test_four_processes_share_one_rate(database_url: str) -> None:
    migrate(database_url)
    spawn, seconds, count = multiprocessing.get_context("spawn"), 3.0, 4
    start, sent = spawn.Barrier(count), spawn.Queue()
    workers = [spawn.Process(target=_send, args=(database_url, seconds, start, sent)) for _ in range(count)]
    for worker in workers:
        worker.start()
    times = np.sort(np.concatenate([sent.get(timeout=60) for _ in workers]))
    for worker in workers:
        worker.join()
    in_second = np.searchsorted(times, times + 1.0) - np.arange(len(times))
    assert in_second.max() <= 1.02 * RPS
    within = times[(times > times[0] + 0.3) & (times < times[0] + seconds - 0.3)]
    assert (len(within) - 1) / np.ptp(within) >= 0.95 * RPS


def test_slots_are_spaced_from_the_first(rates: Rates) -> None:
    start = time.monotonic()
    due = []
    for _ in range(30):  # asked for all at once, as by many requests in waiting
        wait = rates.acquire("c", RPS)
        due.append(time.monotonic() + wait)
    assert due[0] - start < 0.2
    assert (np.array(due) - due[0] - np.arange(30) / RPS).min() >= -0.03  # the first may be late, none early
    assert np.median(np.diff(due)) < 1.05 / RPS


def test_time_that_passed_unused_is_not_saved_up(rates: Rates) -> None:
    for _ in range(10):
        time.sleep(rates.acquire("c", RPS))
    time.sleep(0.5)
    start = time.monotonic()
    due = [time.monotonic() + rates.acquire("c", RPS) - start for _ in range(20)]
    assert due[-1] >= 19 / RPS - 0.02


def test_postpone_holds_for_every_worker(database_url: str, rates: Rates) -> None:
    other_engine = open_engine(database_url)
    other = Rates(other_engine)
    for _ in range(5):
        time.sleep(rates.acquire("c", RPS))
    rates.postpone("c", 2.0)
    for one in (rates, other):
        assert 1.5 < one.acquire("c", RPS) <= 2.1
    rates.postpone("c", 0.1)  # a shorter pause does not shorten the longer one
    assert rates.acquire("c", RPS) > 1.5
    assert rates.acquire("another", RPS) == pytest.approx(0, abs=0.05)
    other_engine.dispose()


def test_slow_rates_take_one_slot_at_a_time(rates: Rates) -> None:
    waits = [rates.acquire("slow", 0.5) for _ in range(4)]
    assert np.diff(waits) == pytest.approx([2 / 0.985] * 3, abs=0.2)
