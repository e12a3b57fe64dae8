"""Group commit: operations that arrive while a transaction is under way share the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

Op = TypeVar("Op")

_MOST = 50  # operations per transaction


class Together(Generic[Op]):
    """`work` does a group in one transaction and returns one result per operation; an exception in place of a
    result is that operation's own, an exception raised is everybody's. Any thread may call."""

    def __init__(self, work: Callable[[Sequence[Op]], Sequence[int | Exception]], name: str) -> None:
        self._work = work
        self._waiting: deque[tuple[Op, Future[int]]] = deque()
        self._writing = Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=name)

    def do(self, operation: Op) -> int:
        """In the caller's thread: whoever gets in first works for everybody who waits."""
        done = self._line_up(operation)
        self._until(done)
        return done.result()

    def submit(self, operation: Op) -> Future[int]:
        """The same without blocking. What is in line will be written, whoever stops waiting for it."""
        done = self._line_up(operation)
        self._writer.submit(self._until, done)
        return done

    def _line_up(self, operation: Op) -> Future[int]:
        done = Future[int]()
        done.set_running_or_notify_cancel()
        self._waiting.append((operation, done))
        return done

    def _until(self, done: Future[int]) -> None:
        while not done.done():
            with self._writing:
                group = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                if group:
                    self._write(group)

    def _write(self, group: Sequence[tuple[Op, Future[int]]]) -> None:
        try:
            results = self._work([operation for operation, _ in group])
        except Exception as error:
            for _, done in group:
                done.set_exception(error)
            return
        for (_, done), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
