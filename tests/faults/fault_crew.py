"""Workers on one database and one source model, their jobs, and the invariants that hold whatever dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fault_worker
import pytest
import sqlalchemy as sa
from fault_source import Source

from app.contracts import Limits, Price
from app.errors import Unusable
from app.gateway.encoding import key
from app.jobs import dataset, samples
from app.jobs.spec import JobSpec
from app.settings import Settings
from app.storage import tables
from app.storage.connections import NewConnection
from app.storage.database import read
from app.storage.jobs import OVER, JobRecord
from app.wiring import House

PRICE = 1_200  # micro-units per query
EXCESS = 1.02  # of the rate limit: the most in any second (I4)
LIMITS = Limits(requests_per_second=200, concurrency=4, max_batch=4)
ROOM = 100_000  # queries: never the limit
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fault_worker"])


def fork(target: Callable[..., None], *args: object) -> multiprocessing.process.BaseProcess:
    """A process that starts with the program loaded."""
    process = FORKS.Process(target=target, args=args, daemon=True)
    with pytest.MonkeyPatch.context() as patched:  # the server of Python 3.11 looks for modules nowhere else
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        process.start()
    return process


def views(number: int = 2) -> dict[str, Any]:
    """A job of a fixed number of queries, quick to compute."""
    return {"method": {"type": "views", "views": number, "size": 12}}


def race() -> dict[str, Any]:
    """A job of several rounds, of a fixed number of queries."""
    return {"method": {"type": "race", "candidates": 8, "images": 20, "size": 12}}


def descent() -> dict[str, Any]:
    """A job that asks for as long as it may: what bounds it is the rate, and not the processors."""
    return {"method": {"type": "bar", "program": {"size": 12}}}


@dataclass
class Crew:
    """Everything one run of the suite has. `deaths` are the times at which a worker was killed."""

    url: str
    folder: Path
    source: Source
    limits: Limits = LIMITS
    settings: dict[str, str] = field(default_factory=dict)
    deaths: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            "REPROG_DATABASE_URL": self.url,
            "REPROG_DATA_DIR": str(self.folder),
            "REPROG_SECRET_KEY": "fault suite",
            "REPROG_ALLOW_PRIVATE_HOSTS": "true",
            **self.settings,
        }
        self.house = House(
            Settings(
                database_url=self.url,
                data_dir=self.folder,
                secret_key="fault suite",
                allow_private_hosts=True,
            )
        )
        self.workers: dict[int, multiprocessing.process.BaseProcess] = {}
        self.connection = self.connect()
        self.dataset = self.upload()

    # ---------------------------------------------------------------- what jobs need

    def connect(self) -> str:
        """A connection to the source model. Returns its id."""
        price, model = Price(PRICE), {"model_id": "m"}
        new = NewConnection("source", "clarifai", self.source.url, model, {}, price, self.limits, "key")
        return self.house.connections.create(new).id

    def upload(self, images: int = 60, seed: int = 0) -> str:
        """A small data set. Returns its id."""
        path = self.folder / f"squares-{images}-{seed}.zip"
        samples.write_squares_zip(path, images, seed, side=12)
        ident, folder = self.house.datasets.reserve()
        taken = dataset.ingest(path, "auto", folder, 0)
        self.house.datasets.create(
            ident, name="squares", classes=taken.classes, counts=taken.counts,
            content_sha256=taken.content_sha256, report=taken.report, seed=0,
        )  # fmt: skip
        return ident

    def job(
        self, seed: int, *, queries: int = ROOM, cap: int | None = None, dataset: str = "", **spec: Any
    ) -> str:
        """Create a job and queue it, as the API does; `cap` in queries' worth of money. Returns its id."""
        limits: dict[str, Any] = {"max_queries": queries, "queries_per_prediction": 2}
        if cap is not None:
            limits["budget"] = {"amount": f"{cap * PRICE / 1e6:.6f}", "currency": "USD"}
        checked = JobSpec.model_validate(
            {
                "name": f"seed {seed}",
                "connection_id": self.connection,
                "dataset_id": dataset or self.dataset,
                "seed": seed,
                "limits": limits,
                **(spec or views()),
            }
        )
        record = self.house.jobs.create(
            name=checked.name, spec=checked.model_dump(mode="json"), metadata={},
            connection_id=checked.connection_id, dataset_id=checked.dataset_id,
            cap=None if cap is None else cap * PRICE, queries_cap=queries,
        )  # fmt: skip
        self.house.runner.enqueue(record.id)
        return record.id

    # ---------------------------------------------------------------- workers

    def start(self, slot: int, **environment: str) -> None:
        """A worker in this slot: always the same executor id."""
        more = {"REPROG_EXECUTOR_ID": f"{self.folder.name}-{slot}", **environment}
        worker = fork(fault_worker.main, self.environment | more, str(self.log))
        self.workers[slot] = worker

    def kill(self, slot: int) -> None:
        """kill -9."""
        worker = self.workers.pop(slot)
        if worker.is_alive():
            self.deaths.append(time.time())
        worker.kill()
        worker.join()

    def signal(self, slot: int, number: signal.Signals) -> None:
        pid = self.workers[slot].pid
        assert pid is not None
        os.kill(pid, number)

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            worker.join(10)
            worker.kill()
            worker.join()
        self.workers.clear()

    @property
    def log(self) -> Path:
        return self.folder / "workers.log"

    # ---------------------------------------------------------------- watching

    def get(self, job: str) -> JobRecord:
        return self.house.jobs.get(job)

    def over(self, jobs: list[str]) -> bool:
        return all(self.get(job).over for job in jobs)

    def wait(self, jobs: list[str], seconds: float = 150, *statuses: str) -> None:
        """Until every job is in one of `statuses` (default: over), with I1 checked all the while."""
        wanted, until = statuses or OVER, time.monotonic() + seconds
        while any(self.get(job).status not in wanted for job in jobs):
            self.never_over()
            if time.monotonic() > until:
                raise AssertionError(f"stuck (I6): {self.story(jobs)}\n{self.tail()}")
            time.sleep(0.05)

    def story(self, jobs: list[str]) -> list[tuple[str, str, str | None, dict[str, Any] | None]]:
        return [(r.id, r.status, r.status_reason, r.error) for r in map(self.get, jobs)]

    def tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def error(self, job: str) -> str | None:
        """The code of the error that the job failed with."""
        return (self.get(job).error or {}).get("code")

    def succeeded(self, jobs: list[str]) -> None:
        """Raises AssertionError with what the workers said of a segment that failed."""
        if all(self.get(job).status == "succeeded" for job in jobs):
            return
        said = self.log.read_text(errors="replace").partition("segment failed")[2][:6000]
        raise AssertionError(f"{[line for line in self.story(jobs) if line[1] != 'succeeded']}\n{said}")

    # ---------------------------------------------------------------- invariants

    def never_over(self) -> None:
        """I1: the provider's bill <= spent + open reservations <= cap."""
        billed = self.source.bill  # first: what is billed later was reserved before
        try:
            with read(self.house.engine) as connection:
                rows = connection.execute(sa.select(tables.budgets)).mappings().all()
        except Unusable:
            return
        taken = 0
        for row in rows:
            queries = row["queries_spent"] + row["queries_reserved"]
            taken += queries if row["scope"].startswith("job_") else 0
            assert row["queries_cap"] is None or queries <= row["queries_cap"], dict(row)
            assert row["cap"] is None or row["spent"] + row["reserved"] <= row["cap"], dict(row)
            assert row["spent"] == row["queries_spent"] * PRICE
        assert billed <= taken, f"I1: billed {billed}, on the books {taken}"

    def check(self, jobs: list[str]) -> None:
        """I1 to I4 and I7 at the end of a run, and that nothing is left open."""
        self.never_over()
        self._in_every_second()
        assert self.source.most_at_once <= self.limits.concurrency
        answered = self._answered()
        self._all_stored()
        self._bought_once(answered)
        with read(self.house.engine) as connection:
            for job in jobs:
                c = tables.events.c
                numbers = list(
                    connection.execute(sa.select(c.seq).where(c.job_id == job).order_by(c.seq)).scalars()
                )
                assert numbers == list(range(1, len(numbers) + 1)), f"I7: {job} {numbers}"
            left = sa.select(sa.func.count()).select_from(tables.claims)
            assert connection.execute(left).scalar_one() == 0
        for job in jobs:
            cost = self.house.ledger.cost(job)
            assert (cost.reserved, cost.queries_reserved) == (0, 0), job

    def _in_every_second(self) -> None:
        """I4, by the provider's clock."""
        allowed = EXCESS * self.limits.requests_per_second
        assert self.source.worst_second() <= allowed, f"I4: {self.source.worst_second()} of {allowed}"

    def _answered(self) -> set[int]:
        """Numbers of the requests whose answers the ledger has."""
        c = tables.attempts.c
        with read(self.house.engine) as connection:
            known = sa.select(c.request_id).where(
                c.outcome.in_(("answered", "partial")), c.request_id.is_not(None)
            )
            return {int(name.removeprefix("r")) for name in connection.execute(known).scalars()}

    def _all_stored(self, margin: float = 3.0) -> None:
        """I2: an answer that left well before any kill is stored."""
        connection = self.house.connections.get(self.connection)
        info = self.house.provider(connection).info
        for image, requests in self.source.bought.items():
            late = [self.source.replied[n] for n in requests if n in self.source.replied]
            if any(not any(at - 0.5 <= death <= at + margin for death in self.deaths) for at in late):
                mark = key(self.connection, info, "v1", image)
                assert self.house.answers.get([mark]), f"I2: answered in {requests} and not stored"

    def _bought_once(self, answered: set[int]) -> None:
        """I3: no image is billed again after an outcome that is known."""
        for requests in self.source.bought.values():
            known = [n for n in requests if n in answered]
            assert len(known) <= 1, f"I3: one image in requests {requests}, outcomes known of {known}"

    def programs(self, jobs: list[str]) -> list[bytes]:
        """The finished programs, in the order of `jobs`."""
        return [self.house.jobs.program(self.house.jobs.latest_program(job).id) for job in jobs]

    def unknown(self) -> int:
        return self.house.ledger.cost(self.connection).unknown_queries

    def by_outcome(self) -> dict[str, int]:
        c = tables.attempts.c
        counts: defaultdict[str, int] = defaultdict(int)
        with read(self.house.engine) as connection:
            for outcome, n in connection.execute(sa.select(c.outcome, sa.func.count()).group_by(c.outcome)):
                counts[outcome] += n
        return counts


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextmanager
def crew(
    url: str, folder: Path, source: Source, workers: int = 0, *, limits: Limits = LIMITS, **settings: str
) -> Iterator[Crew]:
    """A crew with `workers` started, all of them gone at the end of the block."""
    made = Crew(url, folder, source, limits, settings)
    try:
        for slot in range(workers):
            made.start(slot)
        yield made
    finally:
        made.stop()
        made.house.close()
