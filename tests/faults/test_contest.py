"""Many processes at one cap and at one rate limit: nothing over, and what is allowed is used."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Queue
from pathlib import Path

import numpy as np
import pytest
from fault_crew import FORKS, PRICE, crew, descent, fork, until
from fault_source import Source

from app.contracts import Limits
from app.errors import BudgetExhausted, Conflict
from app.storage.budget import Ledger
from app.storage.database import migrate, open_engine

PROCESSES, THREADS = 8, 16
RATE = 100.0


def _spend(url: str, seed: list[int], scope: str, each: int, done: Queue[tuple[int, int, int]]) -> None:
    """One process: `each` reservations, every one settled. Puts (reservations, refused, images spent)."""
    engine = open_engine(url)
    ledger = Ledger(engine)

    def some(thread: int) -> tuple[int, int, int]:
        rng, refused, spent = np.random.default_rng([*seed, thread]), 0, 0
        count = each // THREADS
        for _ in range(count):
            images = int(rng.integers(1, 4))
            try:
                attempt = ledger.reserve(
                    scope, "conn_1", fence=0, images=images, price_micros=PRICE, purpose="t"
                )
            except BudgetExhausted:
                refused += 1
                continue
            billed = int(rng.integers(0, images + 1))
            unknown = int(rng.integers(0, images - billed + 1))
            outcome = "answered" if billed else "unknown" if unknown else "released"
            ledger.settle(attempt, (), billed=billed, unknown=unknown, outcome=outcome)
            spent += billed + unknown
        return count, refused, spent

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(some, range(THREADS)))
    done.put((sum(f[0] for f in found), sum(f[1] for f in found), sum(f[2] for f in found)))
    engine.dispose()


@pytest.mark.parametrize("each", [336, pytest.param(50_000, marks=pytest.mark.chaos)])
def test_eight_processes_at_one_cap(
    database_url: str, seed: int, figures: Callable[[str], None], each: int
) -> None:
    """The account's cap is used to the last query and not passed; sums are exact in every scope."""
    migrate(database_url)
    engine = open_engine(database_url)
    ledger, cap, began = Ledger(engine), PROCESSES * each, time.monotonic()  # wanted: 1.5 times as much
    ledger.open("conn_1", cap * PRICE, None)
    scopes = ("job_1", "job_2", "job_3")
    for scope in scopes:
        ledger.open(scope, None, cap)
    done: Queue[tuple[int, int, int]] = FORKS.Queue()
    workers = [fork(_spend, database_url, [seed, n], scopes[n % 3], each, done) for n in range(PROCESSES)]
    while any(worker.is_alive() for worker in workers) and done.empty():
        account = ledger.cost("conn_1")
        assert account.spent + account.reserved <= cap * PRICE  # I1
        time.sleep(0.2)
    found = [done.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - began
    reservations, refused, spent = (sum(column) for column in zip(*found, strict=True))
    # What is released after every thread's last try nobody asks for again: it is still there to be had.
    left = cap - spent
    assert left < PROCESSES * THREADS * 3
    for _ in range(left):
        attempt = ledger.reserve(scopes[0], "conn_1", fence=0, images=1, price_micros=PRICE, purpose="t")
        ledger.settle(attempt, (), billed=1, unknown=0, outcome="answered")
    with pytest.raises(BudgetExhausted):
        ledger.reserve(scopes[0], "conn_1", fence=0, images=1, price_micros=PRICE, purpose="t")
    account, parts = ledger.cost("conn_1"), [ledger.cost(scope) for scope in scopes]
    assert (account.queries_spent, account.spent, account.reserved) == (cap, cap * PRICE, 0)
    assert cap == sum(part.queries_spent for part in parts)
    assert sum(part.spent for part in parts) == cap * PRICE
    assert all(part.reserved == 0 for part in parts)
    assert refused > 0
    figures(
        f"{PROCESSES} processes, {reservations} reservations, {refused} refused, {spent} of {cap} spent, "
        f"0 over, {reservations / seconds:.0f} reservations per s"
    )
    engine.dispose()


@pytest.mark.parametrize(
    ("workers", "seconds", "every", "least"),
    [(3, 5, 2.5, 0.0), pytest.param(8, 60, 5.0, 0.9, marks=pytest.mark.chaos)],
)
def test_the_rate_is_kept_and_used(
    database_url: str,
    tmp_path: Path,
    source: Source,
    seed: int,
    figures: Callable[[str], None],
    workers: int,
    seconds: int,
    every: float,
    least: float,
) -> None:
    """Workers share one rate; one is killed every few seconds, and the provider says 429 between. No second
    holds more than is allowed (I4); at least `least` of what the provider allowed is used."""
    chance = random.Random(seed)
    refused = _refuse_now_and_then(source, chance, every)
    with crew(database_url, tmp_path / "faults", source, workers, limits=Limits(RATE, 16, 1)) as team:
        jobs = [team.job(n, dataset=team.upload(300, n), **descent()) for n in range(2 * workers)]
        until(lambda: source.requests >= 2 * RATE)  # all of them are up
        first, kills, end = time.monotonic(), 0, time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(every, left))
            slot = chance.choice(list(team.workers))
            team.kill(slot)
            team.start(slot)
            kills += 1
            jobs += [team.job(len(jobs), dataset=team.upload(300, len(jobs)), **descent())]
        last = time.monotonic()
        for job in jobs:
            with suppress(Conflict):
                team.house.jobs.cancel(job)
        team.wait(jobs, 60)
        team.check(jobs)  # I4 with the others
    held = sum(wait for at, wait in refused if first <= at <= last)
    sent = sum(first <= at <= last for at in source.arrivals)
    used = sent / (RATE * (last - first - held))
    told = (
        f"{workers} workers, {kills} kills, {len(refused)} times 429, {sent} requests in "
        f"{last - first:.0f} s ({held:.1f} s of them asked to wait): {used:.3f} of the rate used, "
        f"{source.worst_second()} in the worst second of {RATE:.0f} allowed"
    )
    assert used >= least, told
    figures(told)


def _refuse_now_and_then(source: Source, chance: random.Random, every: float) -> list[tuple[float, float]]:
    """429 with Retry-After 0.2 about every so many seconds. Returns when (monotonic) and for how long."""
    told: list[tuple[float, float]] = []
    due = [time.monotonic() + every]

    def fault(n: int) -> str | None:
        if time.monotonic() < due[0]:
            return None
        due[0] = time.monotonic() + chance.uniform(0.5, 1.5) * every
        told.append((time.monotonic(), 0.2))
        return "throttled 0.2"

    source.fault = fault
    return told
