"""Reservations at one contested cap, by eight processes.

python -m benchmarks ledger [RESERVATIONS per process]
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from app.errors import BudgetExhausted
from app.storage.budget import Ledger
from app.storage.database import migrate, open_engine
from benchmarks.common import databases, save, table

PROCESSES, THREADS, PRICE = 8, 8, 1_200
SPAWN = multiprocessing.get_context("spawn")


def spend(url: str, each: int, start: multiprocessing.Barrier, bought: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    engine = open_engine(url)
    ledger = Ledger(engine)

    def some(count: int) -> int:
        done = 0
        for _ in range(count):
            try:
                attempt = ledger.reserve(
                    "job_1", "conn_1", fence=0, images=1, price_micros=PRICE, purpose="bench"
                )
            except BudgetExhausted:
                break
            ledger.settle(attempt, (), billed=1, unknown=0, outcome="answered")
            done += 1
        return done

    start.wait(60)
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(pool.map(some, [each // THREADS] * THREADS))
    bought.put((done, began, time.monotonic()))
    engine.dispose()


def contest(url: str, each: int) -> tuple[int, int, float]:
    """(bought, cap, seconds); the cap is nine tenths of what the processes try to buy."""
    migrate(url)
    engine = open_engine(url)
    ledger, cap = Ledger(engine), PROCESSES * (each // THREADS) * THREADS * 9 // 10
    ledger.open("job_1", cap * PRICE, None)
    start, bought = SPAWN.Barrier(PROCESSES), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=spend, args=(url, each, start, bought), daemon=True) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    found = [bought.get(timeout=3000) for _ in workers]
    for worker in workers:
        worker.join()
    cost = ledger.cost("job_1")
    engine.dispose()
    assert (cost.queries_spent, cost.spent, cost.reserved) == (cap, cap * PRICE, 0), cost
    assert sum(done for done, _, _ in found) == cap
    return cap, cap, max(end for _, _, end in found) - min(begin for _, begin, _ in found)


def main(each: int = 2_000) -> None:
    each = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[1] == "ledger" else each
    rows = list[tuple[object, ...]]()
    with databases() as urls:
        for name, url in urls.items():
            done, cap, seconds = contest(url, each)
            rows.append((name, PROCESSES, done, cap, f"{seconds:.1f}", f"{done / seconds:.0f}"))
    head = ("database", "processes", "bought", "cap", "s", "reserved and settled per s")
    text = (
        table(head, rows)
        + f"\n\n{THREADS} threads a process, one query a reservation, sums exact, 0 over the cap."
    )
    save("ledger", "Ledger at a contested cap", f"python -m benchmarks ledger {each}", text)


if __name__ == "__main__":
    main()
