"""How much of an allowed rate 1, 2 and 4 worker processes use, and their worst second.

python -m benchmarks rate
"""

from __future__ import annotations

import multiprocessing
import time

import numpy as np

from app.storage.database import migrate, open_engine
from app.storage.rate import Rates
from benchmarks.common import databases, save, spread, table

RPS, SECONDS, REPEATS = 100.0, 15.0, 3
SPAWN = multiprocessing.get_context("spawn")


def send(url: str, name: str, start: multiprocessing.Barrier, sent: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    engine = open_engine(url)
    rates = Rates(engine)
    rates.acquire("warm", RPS)
    start.wait(60)
    times, end = list[float](), time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(rates.acquire(name, RPS))
        times.append(time.monotonic())
    sent.put(times)
    engine.dispose()


def one(url: str, workers: int) -> tuple[float, int]:
    """Share of the allowed rate used, and most requests in any one second."""
    start, sent = SPAWN.Barrier(workers), SPAWN.Queue()
    started = [
        SPAWN.Process(target=send, args=(url, f"c{workers}", start, sent), daemon=True)
        for _ in range(workers)
    ]
    for worker in started:
        worker.start()
    times = np.sort(np.concatenate([sent.get(timeout=120) for _ in started]))
    for worker in started:
        worker.join()
    worst = int((np.searchsorted(times, times + 1.0) - np.arange(len(times))).max())
    inside = times[(times > times[0] + 0.5) & (times < times[0] + SECONDS - 0.5)]
    return (len(inside) - 1) / float(np.ptp(inside)) / RPS, worst


def main() -> None:
    rows = list[tuple[object, ...]]()
    with databases() as urls:
        for name, url in urls.items():
            migrate(url)
            for workers in (1, 2, 4):
                found = [one(url, workers) for _ in range(REPEATS)]
                shares, worst = [share for share, _ in found], [count / RPS for _, count in found]
                rows.append((name, workers, spread(shares, 3), spread(worst, 2)))
    text = table(("database", "workers", "share used", "worst second / allowed"), rows)
    text += (
        f"\n\n{RPS:.0f} requests/s allowed, {SECONDS:.0f} s each, {REPEATS} times, median (least to most)."
    )
    text += " Goals: 0.97 and 1.02."
    save("rate", "Rate", "python -m benchmarks rate", text)


if __name__ == "__main__":
    main()
