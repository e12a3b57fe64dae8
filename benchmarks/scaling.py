"""Past one database: 1,000 workers and 10,000 jobs on one real PostgreSQL. Which statement gives way first?

python -m benchmarks scaling [SECONDS per load]

Workers are logical: what each would ask next, and when, stands in a queue ordered by time; a pool of
connections, as a pooler in front of the server would hold, carries it out. The ledger, the rates and the jobs
are ours as they are; only the provider is a clock: an answer is due so many seconds after its request. The
load (jobs that ask at once) grows until the queue does; each statement's own time then tells who is to blame.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from app.contracts import Limits, Price
from app.settings import Settings
from app.storage import tables
from app.storage.budget import Ledger
from app.storage.connections import NewConnection
from app.storage.database import now as database_now
from app.storage.database import write
from app.storage.jobs import Jobs
from app.storage.rate import Rates
from app.wiring import House
from benchmarks.common import databases, save, table

WORKERS, JOBS, CONNECTIONS, POOL = 1_000, 10_000, 100, 48
PRICE, BATCH, LABELS = 1_200, 8, 20
ANSWER_SECONDS = 1.0  # the provider's clock: a job has one request under way at a time
REQUESTS_PER_STEP = 20  # then a checkpoint
LOOK_SECONDS, PROGRESS_SECONDS, BEAT_SECONDS = 0.5, 2.0, 5.0
LOADS = (10, 20, 40, 80, 160, 320, 640, 1_000, 2_000)  # jobs that ask at once
BEHIND_SECONDS = 1.0  # median lateness at which the load is too much

KEYS = {
    "reserve": "connection_id",
    "settle": "connection_id",
    "lease of slots": "connection_id",
    "checkpoint": "job_id",
    "look at what the user wants": "job_id",
    "progress": "job_id",
    "heartbeat": "executor id",
}

Act = Callable[[], object]


@dataclass(order=True)
class Due:
    """Something a worker does at `at`; afterwards it is due again `every` seconds later, or asks `then`."""

    at: float
    number: int
    name: str = field(compare=False)
    act: Act = field(compare=False)
    every: float = field(compare=False)


@dataclass
class Taken:
    """What was seen of one statement: seconds in the database and seconds late at its start."""

    seconds: list[float] = field(default_factory=list[float])
    late: list[float] = field(default_factory=list[float])


class Clockwork:
    """The queue of everything that is due, and POOL threads that carry it out."""

    def __init__(self) -> None:
        self._due: list[Due] = []
        self._lock = threading.Lock()
        self._number = 0
        self.error: Exception | None = None
        self.taken: dict[str, Taken] = defaultdict(Taken)

    def add(self, at: float, name: str, act: Act, every: float) -> None:
        with self._lock:
            self._number += 1
            heapq.heappush(self._due, Due(at, self._number, name, act, every))

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._carry_out, args=(end,)) for _ in range(POOL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.error is not None:
            raise self.error

    def _carry_out(self, end: float) -> None:
        while (now := time.monotonic()) < end:
            with self._lock:
                due = heapq.heappop(self._due) if self._due and self._due[0].at <= now else None
            if due is None:
                time.sleep(0.002)
                continue
            try:
                due.act()
            except Exception as error:
                self.error = error
                return
            done = time.monotonic()
            with self._lock:
                self.taken[due.name].seconds.append(done - now)
                self.taken[due.name].late.append(now - due.at)
            self.add(max(due.at + due.every, done), due.name, due.act, due.every)


@dataclass
class Job:
    """One job as its worker holds it. A worker is a process: its ledger groups nothing with the others'."""

    jobs: Jobs
    id: str
    fence: int
    account: str
    ledger: Ledger
    rates: Rates
    rng: np.random.Generator
    requests: int = 0
    attempt: int | None = None
    keys: list[bytes] = field(default_factory=list[bytes])
    turn: threading.RLock = field(default_factory=threading.RLock)  # a job is one worker's

    def settle(self) -> None:
        with self.turn:
            if self.attempt is None:
                return
            rows = self.rng.random((BATCH, LABELS), np.float32)
            self.ledger.settle(
                self.attempt, list(zip(self.keys, rows, strict=True)), billed=BATCH, unknown=0,
                outcome="answered",
            )  # fmt: skip
            self.attempt = None

    def reserve(self) -> None:
        with self.turn:
            self.settle()  # under too much load the answer's turn comes after the next request's
            self.keys = [self.rng.bytes(20) for _ in range(BATCH)]
            self.attempt = self.ledger.reserve(
                self.id, self.account, fence=self.fence, images=BATCH, price_micros=PRICE, purpose="step",
                at_once=JOBS, keys=[(one, one) for one in self.keys],
            )  # fmt: skip

    def slot(self) -> None:
        self.rates.acquire(self.account, 1e6)
        self.rates._leases.clear()  # pyright: ignore[reportPrivateUsage] - a lease for each request: the worst case

    def checkpoint(self) -> None:
        self.requests += REQUESTS_PER_STEP
        done = self.requests * BATCH
        self.jobs.save_state(
            self.id, self.fence, self.requests, bytes(20_000), metrics={"train_loss": 1.0}, queries=done,
            spent_micros=done * PRICE, phase="step",
        )  # fmt: skip

    def duties(self) -> Iterable[tuple[str, Act, float]]:
        """What one running job asks of the database, and how often."""
        jobs = self.jobs
        yield "reserve", self.reserve, ANSWER_SECONDS
        yield "lease of slots", self.slot, ANSWER_SECONDS
        yield "settle", self.settle, ANSWER_SECONDS
        yield "checkpoint", self.checkpoint, REQUESTS_PER_STEP * ANSWER_SECONDS
        yield "look at what the user wants", lambda: jobs.wanted(self.id, self.fence), LOOK_SECONDS
        yield "progress", lambda: jobs.progress(self.id, self.fence, {"n": self.requests}), PROGRESS_SECONDS


def prepare(house: House, engine: sa.Engine, connections: int) -> list[Job]:
    """JOBS jobs on so many connections; those that will run are taken by a worker."""
    limits = Limits(1e6, JOBS, BATCH)
    new = NewConnection("c", "clarifai", "http://127.0.0.1", {"model_id": "m"}, {}, Price(PRICE), limits, "k")
    accounts = [house.connections.create(new).id for _ in range(connections)]
    dataset, _ = house.datasets.reserve()
    house.datasets.create(
        dataset, name="d", classes=("a", "b"), counts={}, content_sha256="", report={}, seed=0
    )
    running, ident = list[Job](), ""
    for n in range(max(LOADS)):
        account = accounts[n % connections]
        ident = house.jobs.create(
            name="n", spec={}, metadata={}, connection_id=account, dataset_id=dataset, cap=None,
            queries_cap=None,
        ).id  # fmt: skip
        begun = house.jobs.begin(ident)
        assert begun is not None
        rng, ledger, rates = np.random.default_rng([connections, n]), Ledger(engine), Rates(engine)
        running.append(Job(Jobs(engine), ident, begun.fence, account, ledger, rates, rng))
    with write(engine) as connection:  # the rest wait for a worker: they cost their rows
        jobs, workers = tables.jobs, tables.executors
        row = dict(connection.execute(sa.select(jobs).where(jobs.c.id == ident)).mappings().one())
        names = [f"job_waiting_{connections}_{n}" for n in range(JOBS - max(LOADS))]
        connection.execute(jobs.insert(), [{**row, "id": name} for name in names])
        connection.execute(workers.delete())
        beats = [{"id": f"w{n}", "host": "h", "started_at": 0.0, "beat_at": 0.0} for n in range(WORKERS)]
        connection.execute(workers.insert(), beats)
    return running


def beat(engine: sa.Engine, worker: int) -> None:
    workers = tables.executors
    with write(engine) as connection:
        mine = workers.update().where(workers.c.id == f"w{worker}")
        connection.execute(mine.values(beat_at=database_now(connection)))


def load(engine: sa.Engine, jobs: list[Job], seconds: float) -> dict[str, Taken]:
    """What every statement took while these jobs ran, and WORKERS workers said that they live."""
    clock, rng, start = Clockwork(), np.random.default_rng([len(jobs)]), time.monotonic()
    for job in jobs:
        for name, act, every in job.duties():
            clock.add(start + rng.random() * every, name, act, every)
    for worker in range(WORKERS):
        due = start + rng.random() * BEAT_SECONDS
        clock.add(due, "heartbeat", partial(beat, engine, worker), BEAT_SECONDS)
    clock.run(seconds)
    return dict(clock.taken)


def median(values: list[float]) -> float:
    return float(np.median(values)) if values else 0.0


def raise_load(engine: sa.Engine, jobs: list[Job], seconds: float, title: str) -> str:
    """Load after load until the queue grows; the section's text."""
    rows, first, last = list[tuple[object, ...]](), dict[str, Taken](), dict[str, Taken]()
    for count in LOADS:
        last = load(engine, jobs[:count], seconds)
        first = first or last
        late = [value for taken in last.values() for value in taken.late]
        done = len(last["reserve"].seconds) if "reserve" in last else 0
        rows.append(
            (count, f"{count / ANSWER_SECONDS:.0f}", f"{done / seconds:.0f}", f"{median(late) * 1000:.0f}")
        )
        print(title, *rows[-1], flush=True)
        if done < 0.7 * seconds * count / ANSWER_SECONDS or median(late) > BEHIND_SECONDS:
            break
    head = ("jobs asking at once", "requests due per s", "reserved per s", "median lateness, ms")
    busy = sum(sum(taken.seconds) for taken in last.values())
    by_share = sorted(last, key=lambda name: -sum(last[name].seconds))
    parts = [
        (
            name,
            f"{len(last[name].seconds) / seconds:.0f}",
            f"{median(first[name].seconds) * 1000:.1f}" if name in first else "",
            f"{median(last[name].seconds) * 1000:.1f}",
            f"{sum(last[name].seconds) / busy:.0%}",
            KEYS[name],
        )
        for name in by_share
    ]
    worst, peak = by_share[0], max(int(row[2]) for row in rows)
    text = f"### {title}\n\n" + table(head, rows) + "\n\nAt the last load:\n\n"
    columns = (
        "statement",
        "calls per s",
        "ms at the first load",
        "ms now",
        "of the database's time",
        "shard key",
    )
    text += table(columns, parts)
    return text + (
        f"\n\nFirst to saturate: **{worst}**; the most that was reserved is {peak} requests/s"
        f" ({peak * BATCH} queries/s). It would be split by `{KEYS[worst]}`.\n\n"
    )


def main(seconds: float = 8.0) -> None:
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[1] == "scaling" else seconds
    text = ""
    with databases() as urls, tempfile.TemporaryDirectory() as folder:
        house = House(Settings(data_dir=Path(folder), database_url=urls["PostgreSQL"]))
        engine = sa.create_engine(urls["PostgreSQL"], pool_size=POOL, max_overflow=0)
        for connections in (CONNECTIONS, 1):
            jobs = prepare(house, engine, connections)
            title = f"{JOBS} jobs on {connections} connection{'s' if connections > 1 else ''}"
            text += raise_load(engine, jobs, seconds, title)
        engine.dispose()
        house.close()
    text += (
        f"{WORKERS} workers send heartbeats; a running job has one request of {BATCH} images under way"
        f" ({LABELS} labels),\nanswered after {ANSWER_SECONDS:g} s, and a checkpoint of 20 kB every"
        f" {REQUESTS_PER_STEP} requests; the other jobs wait.\n{POOL} connections to PostgreSQL, synchronous"
        f" commit on, clients and server on this machine, {seconds:g} s a load.\nNo two workers share a"
        " transaction."
    )
    save("scaling", "Past one database", f"python -m benchmarks scaling {seconds:g}", text)


if __name__ == "__main__":
    main()
