"""A worker process for the runner suite: jobs that count their segments in a fenced row.

python runner_worker.py ENGINE_URL DATABASE_URL EXECUTOR_ID SEGMENTS CONCURRENCY SECONDS
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

import sqlalchemy as sa
from sqlalchemy import Column, Float, Integer, String

from app.errors import StaleFence
from app.jobs import runner as runner_module
from app.jobs.runner import DbosRunner
from app.storage.database import open_engine
from app.storage.executors import Executors

metadata = sa.MetaData()
jobs = sa.Table(
    "trial_jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("goal", Integer),  # segments to do; negative: every segment fails
    Column("done", Integer),
    Column("fence", Integer),
    Column("paused", Integer),
    Column("error", String),
)
segments = sa.Table(
    "trial_segments",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String),
    Column("executor", String),
    Column("began", Float),
    Column("ended", Float),  # null: not ended, or ended without a right to write
)

SILENT, BEAT, REAP = 2.0, 0.3, 0.3


class Trial:
    """One segment: raise the fence, work for a while, count it where the fence still stands."""

    def __init__(self, engine: sa.Engine, runner: DbosRunner, seconds: float) -> None:
        self.engine, self.runner, self.seconds = engine, runner, seconds

    def work(self, job_id: str) -> bool:
        mine = jobs.c.id == job_id
        with self.engine.begin() as c:
            raised = jobs.update().where(mine).values(fence=jobs.c.fence + 1).returning(jobs)
            row = c.execute(raised).one()
            if row.paused or row.done >= row.goal >= 0:
                return False
            begun = segments.insert().values(
                job_id=job_id, executor=self.runner.executor_id, began=time.time()
            )
            segment = c.execute(begun.returning(segments.c.id)).scalar_one()
        if row.goal < 0:
            raise ValueError("broken")
        until = time.time() + self.seconds
        while time.time() < until and not self.runner.stopping.is_set():
            time.sleep(0.02)
        with self.engine.begin() as c:
            counted = jobs.update().where(mine, jobs.c.fence == row.fence).values(done=jobs.c.done + 1)
            now = c.execute(counted.returning(jobs)).one_or_none()
            if now is None:
                raise StaleFence(job_id)
            c.execute(segments.update().where(segments.c.id == segment).values(ended=time.time()))
        return now.done < row.goal and not now.paused  # a goal set meanwhile is for the next run

    def on_error(self, job_id: str, error: Exception) -> None:
        text = sa.func.coalesce(jobs.c.error, "") + f"{error};"
        with self.engine.begin() as c:
            c.execute(jobs.update().where(jobs.c.id == job_id).values(error=text))


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
    engine_url, url, executor_id, segments_each, concurrency, seconds = sys.argv[1:]
    runner_module.SEGMENTS = int(segments_each)
    engine = open_engine(url)
    runner = DbosRunner(
        engine_url,
        executor_id,
        Executors(engine, silent=SILENT, every=BEAT),
        concurrency=int(concurrency),
        poll=0.2,
        reap=REAP,
        pause=0.2,
    )
    trial = Trial(engine, runner, float(seconds))
    signal.signal(signal.SIGTERM, lambda *_: runner.stopping.set())
    runner.launch(trial.work, trial.on_error)
    print("ready", flush=True)
    runner.stopping.wait()
    runner.close()
    print("closed", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
