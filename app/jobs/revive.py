"""A provider that was down and answers again: its jobs go on by themselves, within bounds.

Health costs nothing to ask where the provider lists its labels for free; elsewhere the user resumes. One job
of a connection is resumed at a look, and one request of it finds out (see `Gateway.trial`). Each time that a
job is paused again before its next step, the wait doubles; after LAST times it is left alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from app.contracts import JobRunner
from app.errors import Conflict, NotFound, ReprogError
from app.storage.down import DownJob
from app.storage.jobs import Jobs

log = logging.getLogger(__name__)

DOWN = "provider_down"  # the job's status_reason
FIRST_SECONDS = 30.0
LAST = 8  # times in a row: about two hours


class Reviver:
    """One per worker; several at once do no harm."""

    def __init__(
        self,
        jobs: Jobs,
        runner: JobRunner,
        healthy: Callable[[str], bool],  # connection id
        *,
        beside: Callable[[], object] = lambda: None,  # other upkeep, done at every look
        every: float = 15.0,
        first: float = FIRST_SECONDS,
    ) -> None:
        self._jobs, self._runner, self._healthy = jobs, runner, healthy
        self._every, self._first, self._beside = every, first, beside

    def start(self, stopping: threading.Event) -> None:
        """Look until `stopping`."""
        threading.Thread(target=self._keep_looking, args=(stopping,), name="reviver", daemon=True).start()

    def _keep_looking(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                self._beside()
                self.look()
            except Exception:  # the database may be away for a while
                log.exception("looking for jobs to resume failed")
            stopping.wait(self._every)

    def look(self) -> list[str]:
        """Resume what can go on; returns the job ids."""
        resumed: list[str] = []
        known: dict[str, bool] = {}
        for job in self._due():
            account = job.connection_id
            if account not in known:
                known[account] = self._probe(account)
            if not known[account]:
                continue
            with suppress(Conflict, NotFound):  # somebody else was faster
                self._jobs.resume(job.id, by="health")
                self._runner.enqueue(job.id)
                resumed.append(job.id)
                known[account] = False  # the others when this one has shown that it works
                log.info("job %s: its provider answers again, resumed", job.id)
        return resumed

    def _due(self) -> Iterator[DownJob]:
        for job in self._jobs.down(DOWN):
            wait = self._first * 2.0**job.revived
            if job.revived < LAST and time.time() >= job.paused_at + wait:
                yield job

    def _probe(self, connection_id: str) -> bool:
        try:
            return self._healthy(connection_id)
        except ReprogError as error:
            log.info("connection %s is still down: %s", connection_id, error.detail)
            return False
