"""RunnerSuite: what any JobRunner must do, with real worker processes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from databases import freeze
from runner_worker import BEAT, SILENT, jobs, metadata, segments

from app.errors import BadRequest, Conflict
from app.jobs.runner import DbosRunner
from app.storage.database import open_engine
from app.storage.executors import Executors
from app.storage.tables import executors

ROOT = Path(__file__).parents[2]


class Crew:
    """A database, a runner that never launches, and worker processes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine_url = url.replace(".sqlite", ".engine.sqlite")
        self.engine = open_engine(url)
        metadata.create_all(self.engine)
        executors.create(self.engine)
        self.runner = DbosRunner(self.engine_url, "", Executors(self.engine))
        self.workers: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        for worker in self.workers:
            with suppress(ProcessLookupError):
                worker.send_signal(signal.SIGCONT)
            worker.kill()
            with suppress(ValueError):  # read already
                print(worker.args[5], worker.communicate()[1], sep=": ")  # seen when the test fails
        self.runner.close()
        self.engine.dispose()

    def add(self, *job_ids: str, goal: int) -> None:
        """Make the jobs and enqueue them from this process, which is no worker."""
        for job_id in job_ids:
            with self.engine.begin() as c:
                c.execute(jobs.insert().values(id=job_id, goal=goal, done=0, fence=0, paused=0))
            self.runner.enqueue(job_id)

    def set(self, job_id: str, **values: int) -> None:
        with self.engine.begin() as c:
            c.execute(jobs.update().where(jobs.c.id == job_id).values(**values))

    def get(self, job_id: str) -> sa.Row:
        with self.engine.begin() as c:
            return c.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()

    def segments(self, *where: sa.ColumnElement[bool]) -> list[sa.Row]:
        with self.engine.begin() as c:
            return list(c.execute(sa.select(segments).where(*where).order_by(segments.c.id)))

    def start(
        self, executor_id: str, *, each: int = 500, concurrency: int = 2, seconds: float = 0.1
    ) -> subprocess.Popen[str]:
        """Start a worker without waiting for it; `each` segments per workflow."""
        script = Path(__file__).with_name("runner_worker.py")
        arguments = [self.engine_url, self.url, executor_id, str(each), str(concurrency), str(seconds)]
        worker = subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *arguments],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def ready(self, executor_id: str, **options: float) -> subprocess.Popen[str]:
        """Start a worker and wait until it works."""
        worker = self.start(executor_id, **options)
        said = worker.stdout.readline()
        assert said == "ready\n", worker.communicate()[1]
        return worker

    def engine_rows(self) -> dict[str, int]:
        """How many rows the engine's tables have."""
        engine = sa.create_engine(self.engine_url, poolclass=sa.NullPool)
        schema = "dbos" if engine.dialect.name == "postgresql" else None
        with engine.connect() as c:
            return {
                name: c.execute(
                    sa.select(sa.func.count()).select_from(sa.table(name, schema=schema))
                ).scalar_one()
                for name in ("workflow_status", "operation_outputs", "workflow_input", "workflow_output")
            }

    def finished(self, *job_ids: str) -> bool:
        return all(row.done >= row.goal for row in map(self.get, job_ids))


@pytest.fixture
def crew(database_url: str) -> Iterator[Crew]:
    crew = Crew(database_url)
    yield crew
    crew.close()


def wait(condition: Callable[[], object]) -> float:
    """Seconds until the condition holds; fails after 20, which a loaded machine may need."""
    start = time.time()
    while not condition():
        assert time.time() - start < 20, "not within 20 s"
        time.sleep(0.02)
    return time.time() - start


def overlaps(rows: list[sa.Row]) -> int:
    """Pairs of segments of one job that ran at the same time (segments that could not write left out)."""
    ended = sorted((row.job_id, row.began, row.ended) for row in rows if row.ended is not None)
    return sum(a[0] == b[0] and b[1] < a[2] for a, b in pairwise(ended))


class RunnerSuite:
    """Every test gets a fresh database."""

    def test_enqueued_elsewhere_before_any_worker_it_runs_to_the_end(self, crew: Crew) -> None:
        crew.add("job_a", goal=7)
        crew.runner.enqueue("job_a")  # already waits: nothing more
        worker = crew.ready("w", each=3)  # goes on in a successor after every third segment
        wait(lambda: crew.finished("job_a"))
        crew.add("job_b", goal=1)
        wait(lambda: crew.segments(segments.c.job_id == "job_b"))
        crew.runner.enqueue("job_a")  # over: the worker sees that and leaves it
        wait(lambda: crew.get("job_a").fence > 7)
        assert crew.get("job_a").done == len(crew.segments(segments.c.job_id == "job_a")) == 7
        if "sqlite" in crew.url:
            assert psutil.Process(worker.pid).net_connections("inet") == []

    def test_killed_worker_goes_on_in_its_slot(self, crew: Crew) -> None:
        crew.add("job_a", goal=1000)
        killed = crew.ready("w")
        wait(lambda: crew.get("job_a").done >= 2)
        killed.kill()
        killed.wait()
        before = len(crew.segments())
        crew.ready("w")
        assert wait(lambda: len(crew.segments()) > before) < 5
        assert overlaps(crew.segments()) == 0

    def test_other_executor_takes_over_from_the_dead_for_ever(self, crew: Crew) -> None:
        crew.add("job_a", goal=1000)
        for dying, living in (("w1", "w2"), ("w2", "w3")):
            first = next((w for w in crew.workers if w.poll() is None), None) or crew.ready(dying)
            crew.ready(living)
            wait(lambda dying=dying: crew.segments(segments.c.executor == dying))
            first.kill()
            first.wait()
            wait(lambda living=living: crew.segments(segments.c.executor == living))
        assert overlaps(crew.segments()) == 0

    def test_paused_job_stops_and_resumes(self, crew: Crew) -> None:
        crew.add("job_a", goal=1000)
        crew.ready("w", seconds=0.3)
        wait(lambda: crew.get("job_a").done)
        crew.set("job_a", paused=1)
        time.sleep(0.5)
        done = crew.get("job_a").done
        time.sleep(0.4)
        assert crew.get("job_a").done == done
        crew.set("job_a", paused=0)
        crew.runner.enqueue("job_a")
        wait(lambda: crew.get("job_a").done > done)

    def test_resume_is_not_lost_while_the_last_segment_ends(self, crew: Crew) -> None:
        crew.add("job_a", goal=1)
        crew.ready("w", seconds=0.4)
        wait(crew.segments)
        crew.set("job_a", goal=2)
        crew.runner.enqueue("job_a")  # while the first run is about to say that all is done
        wait(lambda: crew.finished("job_a"))
        assert all(row.ended for row in crew.segments())  # after it, not beside it

    def test_closed_worker_hands_its_job_over_at_once(self, crew: Crew) -> None:
        crew.add("job_a", goal=1000)
        first = crew.ready("w1", seconds=30)
        wait(crew.segments)
        second = crew.ready("w2")
        first.terminate()
        wait(lambda: crew.segments(segments.c.executor == "w2"))
        assert first.communicate(timeout=20)[0] == "closed\n"
        assert overlaps(crew.segments()) == 0
        assert crew.runner._executors.alive() == {"w2"}
        second.kill()
        assert "is gone" not in second.communicate()[1]  # handed over, not taken from the dead

    def test_what_ended_long_ago_is_forgotten(self, crew: Crew) -> None:
        crew.add("job_a", "job_b", goal=4)
        worker = crew.ready("w", each=2)
        wait(lambda: crew.finished("job_a", "job_b"))
        worker.kill()
        crew.ready("w")
        crew.add("job_c", goal=10_000)
        wait(lambda: crew.segments(segments.c.job_id == "job_c"))
        before = crew.engine_rows()
        assert crew.runner.forget(60) == 0
        wait(lambda: crew.runner.forget(0) == 0)
        after = crew.engine_rows()
        assert after["workflow_status"] == 1 < before["workflow_status"]  # what runs is kept
        crew.set("job_a", goal=6)
        crew.runner.enqueue("job_a")
        wait(lambda: crew.get("job_a").done == 6)

    def test_two_workers_share_jobs(self, crew: Crew) -> None:
        names = [f"job_{n}" for n in range(6)]
        crew.add(*names, goal=3)
        for executor in ("w1", "w2"):
            crew.start(executor)
        wait(lambda: crew.finished(*names))
        rows = crew.segments()
        assert overlaps(rows) == 0
        assert {row.executor for row in rows} == {"w1", "w2"}
        assert [crew.get(name).done for name in names] == [3] * 6

    def test_concurrency_and_cancel_of_what_waits(self, crew: Crew) -> None:
        crew.add("job_a", "job_b", "job_c", goal=1)
        for job_id in ("job_b", "job_b", "job_none"):
            crew.runner.cancel(job_id)
        crew.ready("w", concurrency=1, seconds=0.3)
        wait(lambda: crew.finished("job_a", "job_c"))
        rows = crew.segments()
        assert [row.job_id for row in rows].count("job_b") == 0
        assert rows[0].ended <= rows[1].began

    def test_failing_job_is_reported_once_and_left_alone(self, crew: Crew) -> None:
        crew.add("job_a", goal=-1)
        crew.ready("w")
        wait(lambda: crew.get("job_a").error)
        time.sleep(0.6)
        assert crew.get("job_a").error == "broken;"
        crew.set("job_a", goal=2)
        crew.runner.enqueue("job_a")
        wait(lambda: crew.finished("job_a"))

    def test_executor_id_in_use_is_refused(self, crew: Crew) -> None:
        crew.ready("w")
        error = crew.start("w").communicate(timeout=20)[1]
        assert "Conflict: Executor id 'w' is in use" in error
        here = crew.runner._executors
        with pytest.raises(Conflict):
            here.join("w", on_lost=lambda: None)
        other = Executors(crew.engine, host="elsewhere", silent=SILENT)
        if "sqlite" in crew.url:
            with pytest.raises(Conflict, match="SQLite"):
                other.join("w2", on_lost=lambda: None)
        else:
            other.join("w2", on_lost=lambda: None).leave()
        assert here.alive() == {"w"}

    def test_worker_back_from_the_dead_writes_nothing(self, crew: Crew) -> None:
        crew.add("job_a", goal=60)
        first = crew.ready("w1", seconds=0.2)
        crew.ready("w2")
        wait(crew.segments)
        holder = crew.segments()[0].executor
        frozen = first if holder == "w1" else crew.workers[1]
        other = {"w1", "w2"} - {holder}
        freeze(frozen.pid, crew.url, crew.engine_url)
        at = time.time()
        wait(lambda: crew.segments(segments.c.executor.in_(other)))
        frozen.send_signal(signal.SIGCONT)
        back = time.time()
        time.sleep(1)
        rows = crew.segments(segments.c.executor == holder, segments.c.ended > at)
        assert rows == []
        assert crew.get("job_a").error is None  # losing a job is no error of the job
        assert all(w.poll() is None for w in crew.workers)
        wait(lambda: crew.get("job_a").done > 15 and time.time() > back + 4 * BEAT)
        assert crew.runner._executors.alive() == {"w1", "w2"}
        assert overlaps(crew.segments()) == 0


class TestDbosRunner(RunnerSuite):
    """DBOS on both databases."""


def test_slots_are_numbered_per_host_and_reused(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    executors.create(engine)
    here = Executors(engine, host="h")
    first = here.join("", on_lost=lambda: None)
    second = here.join("", on_lost=lambda: None)
    first.leave()
    third = here.join("", on_lost=lambda: None)
    assert (first.id, second.id, third.id) == ("h-0", "h-1", "h-0")
    assert here.alive() == {"h-0", "h-1"}
    with pytest.raises(BadRequest):
        here.join("../h", on_lost=lambda: None)
    second.leave()
    third.leave()
    engine.dispose()


def test_executor_whose_id_was_taken_learns_it(database_url: str) -> None:
    engine = open_engine(database_url)
    executors.create(engine)
    lost: list[str] = []
    here = Executors(engine, every=0.05)
    member = here.join("w", on_lost=lambda: lost.append("w"))
    with engine.begin() as c:
        c.execute(executors.update().values(started_at=executors.c.started_at + 1, host="elsewhere"))
    wait(lambda: lost)
    member.leave()
    with engine.begin() as c:  # what is another's stays
        assert c.execute(sa.select(executors.c.host)).scalars().all() == ["elsewhere"]
    engine.dispose()


def test_error_that_cannot_be_recorded_is_tried_again(sqlite_url: str) -> None:
    """A database away for a while must neither lose the job nor make a tight loop."""
    engine = open_engine(sqlite_url)
    executors.create(engine)
    calls: list[float] = []

    def work(job_id: str) -> bool:
        calls.append(time.time())
        raise RuntimeError(job_id)

    def on_error(job_id: str, error: Exception) -> None:
        if len(calls) < 3:
            raise ConnectionError("no database")

    url = sqlite_url.replace(".sqlite", ".engine.sqlite")
    runner = DbosRunner(url, "", Executors(engine), poll=0.1, pause=0.2)
    runner.launch(work, on_error)
    runner.enqueue("job_a")
    wait(lambda: len(calls) == 3)
    wait(lambda: not runner.running())
    time.sleep(0.5)
    assert len(calls) == 3
    assert calls[2] - calls[0] >= 0.4
    runner.close()
    engine.dispose()
