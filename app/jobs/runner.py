"""Who runs which job: `JobRunner` on DBOS. The only file that knows the engine.

A job is a durable workflow of segments (30 to 120 s each, one DBOS step each) on one queue, partitioned
by job: at most one workflow per job runs at a time, over all executors. The engine owns nothing else:
money, answers, checkpoints and what the user wants are in our tables, and the job's fence there is what
keeps a worker that wakes from the dead from writing.

What DBOS does not do is notice a dead machine. Executors leave heartbeats (app.storage.executors); a
reaper in each worker replaces the workflows of silent ones, again and again until none is left.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cached_property, partial
from uuid import NAMESPACE_OID, uuid4, uuid5

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus

from app.errors import StaleFence
from app.storage.executors import Executors, Membership

log = logging.getLogger(__name__)

NAME, QUEUE = "reprog", "jobs"
VERSION = "1"  # of the workflow below. Workflows of another version are never run: do not change it.
SEGMENTS = 500  # then a successor goes on, so that no history grows without end
KEPT_SECONDS = 7 * 86_400.0  # how long the history of what ended is kept
TIDY_SECONDS = 600.0  # between two looks at it
ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
FROZEN_SECONDS = 15.0  # then PostgreSQL takes its locks from a process that froze inside a transaction
MORE, OVER, HAND_OVER = "more", "over", "hand over"


class DbosRunner:
    """Enqueues from any process; runs jobs in a process that launches it (one launched runner each).

    Seconds: look at the queue every `poll`, for the dead every `reap`; wait `pause` after an error that
    could not even be recorded. How long an executor is silent before it counts as dead: `executors`.
    """

    def __init__(
        self,
        engine_url: str,
        executor_id: str,
        executors: Executors,
        *,
        concurrency: int = 2,
        poll: float = 0.5,
        reap: float = 10.0,
        pause: float = 5.0,
        on_dead: Callable[[str], object] = lambda job_id: None,
    ) -> None:
        self.executor_id = executor_id  # empty: known after launch
        self.stopping = threading.Event()  # a segment in progress should end at its next step
        self._url = sa.make_url(engine_url)
        self._executors = executors
        self._concurrency = concurrency
        self._poll, self._reap_every, self._pause = poll, reap, pause
        self._on_dead = on_dead  # told of each job whose worker died, before the job waits for another
        self._membership: Membership | None = None
        self._reaper = threading.Thread(target=self._keep_reaping, name="reaper", daemon=True)
        self._closing = threading.Lock()
        self._running: dict[str, str] = {}  # workflow id -> job id, of this process
        self._strays: set[str] = set()

    # ------------------------------------------------------------ any process

    def enqueue(self, job_id: str) -> None:
        """Have the job run, now or after what runs of it now. Call it once the job's row says so.

        A workflow that still waits will read the row when it starts, so a second one is not made.
        """
        if not self._waiting(job_id):
            self._client.enqueue(self._options(job_id, uuid4().hex), job_id)

    def ensure(self, job_ids: Sequence[str]) -> list[str]:
        """Queue those jobs that the engine knows nothing of: whoever made or resumed them died before it
        could say so, or the database is a restored one. Returns their ids."""
        if not job_ids:
            return []
        active = self._client.list_workflows(
            status=["ENQUEUED", "PENDING"], queue_name=QUEUE, load_input=False, load_output=False
        )
        known = {workflow.workflow_id.partition("/")[0] for workflow in active}
        missing = [job_id for job_id in job_ids if job_id not in known]
        for job_id in missing:
            self.enqueue(job_id)
        return missing

    def cancel(self, job_id: str) -> None:
        """Drop the job from the queue where it has not started; a running segment reads `want`."""
        self._client.cancel_workflows([workflow.workflow_id for workflow in self._waiting(job_id)])

    def forget(self, kept: float = KEPT_SECONDS) -> int:
        """Delete workflows that ended more than `kept` seconds ago, with their steps: a day of a job leaves
        about 1500 rows. Returns how many workflows; some hundreds at most, the rest next time."""
        before = datetime.fromtimestamp(time.time() - kept, UTC).isoformat()
        ended = self._client.list_workflows(
            status=ENDED, queue_name=QUEUE, completed_before=before, limit=500,
            load_input=False, load_output=False,
        )  # fmt: skip
        self._client.delete_workflows([workflow.workflow_id for workflow in ended])
        return len(ended)

    def running(self) -> list[str]:
        """Ids of the jobs that this process runs now."""
        return sorted(set(self._running.values()))

    def _waiting(self, job_id: str) -> list[WorkflowStatus]:
        return self._client.list_workflows(
            status="ENQUEUED", workflow_id_prefix=f"{job_id}/", load_input=False, load_output=False
        )

    def _options(self, job_id: str, unique: str) -> EnqueueOptions:
        return {
            "workflow_name": "job",
            "queue_name": QUEUE,
            "queue_partition_key": job_id,
            "workflow_id": f"{job_id}/{unique}",
            "app_version": VERSION,
            "application_name": NAME,
        }

    @cached_property
    def _client(self) -> DBOSClient:
        """The engine's tables, made on first use."""
        logger = logging.getLogger("dbos")
        if not logger.handlers:  # otherwise DBOS prints to the console by itself
            logger.addHandler(logging.NullHandler())
            logger.setLevel(logging.WARNING)
        if self._url.get_backend_name() == "sqlite":
            with closing(sqlite3.connect(self._url.database or "", timeout=30)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # stays in the file; four times faster
        url = self._url.render_as_string(hide_password=False)
        DBOS.migrate(url)
        return DBOSClient(
            system_database_url=url,
            application_name=NAME,
            serializer=DBOSPortableJSONSerializer(),
            retry_connection_errors=False,
            sys_db_idle_transaction_timeout_sec=FROZEN_SECONDS,
        )

    # ------------------------------------------------------------ the worker

    def launch(self, work: Callable[[str], bool], on_error: Callable[[str, Exception], None]) -> None:
        """Start working. `work(job_id)` runs one segment and returns whether more is to do.

        When it raises, `on_error(job_id, error)` records that and the job is left alone until it is
        enqueued again; when that fails as well (no database), the segment is tried again after a pause.
        StaleFence means that another worker has the job: nothing is recorded. Raises Conflict when a
        live process has this executor id.
        """
        self._membership = self._executors.join(self.executor_id, on_lost=self.close)
        self.executor_id = self._membership.id
        try:
            self._client.register_queue(
                QUEUE,
                worker_concurrency=self._concurrency,
                partition_concurrency=1,
                polling_interval_sec=self._poll,
            )
            self._bury_myself()
            self._launch_engine(lambda job_id: self._segment(job_id, work, on_error))
        except BaseException:
            self.close(0)
            raise
        self._reaper.start()

    def close(self, timeout: float = 10) -> None:
        """Stop: segments in progress end at their next step and their jobs go back to the queue.

        What does not end within `timeout` seconds is taken over by another worker, or on restart; such
        a segment keeps this process alive until it ends.
        """
        self.stopping.set()
        with self._closing:
            if self._membership is not None:
                wait = math.ceil(timeout) if self._running else 0
                if self._reaper.is_alive():
                    self._reaper.join()
                DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=wait)
                self._membership.leave()
                self._membership = None
            if "_client" in self.__dict__:
                self._client.destroy()
                del self._client

    def _bury_myself(self) -> None:
        """What an earlier process of this executor id was running when it died."""
        for workflow in self._client.list_workflows(
            status="PENDING",
            queue_name=QUEUE,
            executor_id=self.executor_id,
            load_input=False,
            load_output=False,
        ):
            self._on_dead(workflow.workflow_id.partition("/")[0])

    def _launch_engine(self, segment: Callable[[str], str]) -> None:
        config: DBOSConfig = {
            "name": NAME,
            "system_database_url": self._url.render_as_string(hide_password=False),
            "executor_id": self.executor_id,
            "application_version": VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            "sys_db_pool_size": self._concurrency + 6,
            "sys_db_idle_transaction_timeout_sec": FROZEN_SECONDS,
            "enable_otlp": False,
            "log_level": "WARNING",
        }
        DBOS(config=config)

        @DBOS.workflow(name="job", max_recovery_attempts=None)
        def job(job_id: str) -> None:  # pyright: ignore[reportUnusedFunction]
            workflow_id = DBOS.workflow_id or ""
            self._running[workflow_id] = job_id
            try:
                state = MORE
                for _ in range(SEGMENTS):
                    state = DBOS.run_step({"name": "segment"}, segment, job_id)
                    if state != MORE:
                        break
                if state != OVER:
                    successor = uuid5(NAMESPACE_OID, workflow_id).hex  # the same when replayed
                    DBOS.enqueue_workflow_with_options(self._options(job_id, successor), job_id)
            finally:
                self._running.pop(workflow_id, None)

        DBOS.launch()

    def _segment(
        self, job_id: str, work: Callable[[str], bool], on_error: Callable[[str, Exception], None]
    ) -> str:
        if self.stopping.is_set():
            return HAND_OVER
        try:
            more = work(job_id)
        except StaleFence:
            return OVER
        except Exception as error:
            log.exception("job %s: segment failed", job_id)
            more = not self._quietly(partial(on_error, job_id, error))
            if more:
                self.stopping.wait(self._pause)
        if not more:
            return OVER
        return HAND_OVER if self.stopping.is_set() else MORE

    # ------------------------------------------------------------ the reaper

    def _keep_reaping(self) -> None:
        tidied = -math.inf
        while not self.stopping.wait(self._reap_every):
            self._quietly(self._reap)
            if time.monotonic() - tidied > TIDY_SECONDS:
                tidied = time.monotonic()
                self._quietly(self.forget)
                self._quietly(self._executors.forget)

    def _reap(self) -> None:
        """Replace workflows whose executor is dead, or that this one took but does not run (two looks).

        The replacement is queued first, and starts when the partition is free: dying between the two
        calls, or another reaper at the same time, costs nothing.
        """
        pending = self._client.list_workflows(
            status="PENDING", queue_name=QUEUE, load_input=False, load_output=False
        )
        alive = self._executors.alive()  # after the list: who took one of these had joined before
        mine = {w.workflow_id for w in pending if w.executor_id == self.executor_id} - self._running.keys()
        for workflow in pending:
            if workflow.executor_id not in alive or workflow.workflow_id in self._strays & mine:
                job_id = workflow.workflow_id.partition("/")[0]
                log.warning("job %s: executor %s is gone, queued again", job_id, workflow.executor_id)
                self._on_dead(job_id)
                self.enqueue(job_id)
                self._client.cancel_workflow(workflow.workflow_id)
        self._strays = mine

    def _quietly(self, action: Callable[[], object]) -> bool:
        """Run it; log what it raises (the database may be away for a while). Whether it succeeded."""
        try:
            action()
        except Exception:
            log.exception("%s failed", getattr(action, "__name__", "action"))
            return False
        return True
