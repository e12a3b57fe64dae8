"""`reprog worker` as the fault suite runs it: the same process, with shorter segments and patience.

Started by a fork server that has imported the program already, so that two hundred deaths take minutes.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import replace
from functools import cached_property

from app import worker
from app.jobs.bench import Bench
from app.jobs.runner import DbosRunner
from app.settings import Settings
from app.storage.executors import Executors
from app.wiring import House

SILENT, BEAT, REAP = 3.0, 0.5, 0.7  # seconds; 30, 5 and 10 in service


class QuickHouse(House):
    """As in service, but dead workers are noticed after three seconds and segments are short."""

    @cached_property
    def runner(self) -> DbosRunner:
        return DbosRunner(
            self.settings.engine_database(),
            self.settings.executor_id,
            Executors(self.engine, silent=SILENT, every=BEAT),
            concurrency=2,
            poll=0.2,
            reap=REAP,
            pause=0.5,
            on_dead=self.orphaned,
        )

    def bench(self) -> Bench:
        return replace(super().bench(), segment_seconds=1.5)


def main(environment: dict[str, str], log: str) -> None:
    """The whole life of a worker process."""
    os.environ.update(environment)
    obey_file_modes()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    logging.getLogger("dbos").setLevel(logging.ERROR)
    worker.House = QuickHouse  # pyright: ignore[reportPrivateImportUsage]
    worker.run(Settings())


def obey_file_modes() -> None:
    """As if we were not root: a file without write permission cannot be written (capabilities(7))."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # of this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low words, then high words
    assert libc.capget(head, sets) == 0, os.strerror(ctypes.get_errno())
    sets[0] &= ~0b10  # CAP_DAC_OVERRIDE
    assert libc.capset(head, sets) == 0, os.strerror(ctypes.get_errno())
