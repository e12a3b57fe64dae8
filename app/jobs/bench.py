"""What a job works with: the worker's bench, one segment's record, and how it asks."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.contracts import Images, Limits, Price, ScoreKind, Scores
from app.errors import BudgetExhausted, Interrupted, ProviderError, QuotaExhausted, Unusable
from app.gateway.query import Answers, Gateway
from app.jobs.dataset import Dataset
from app.jobs.progress import Meter
from app.jobs.quote import Plan
from app.jobs.spec import JobSpec
from app.methods import Method
from app.reprogramming.transform import View, render_many
from app.storage.budget import Ledger
from app.storage.endpoints import Endpoints
from app.storage.jobs import Jobs

LARGEST_CHUNK = 512  # images rendered and asked at once: bounds memory
CHUNK_SECONDS = 2.0  # and how soon a pause is seen
PHASES_PAST_DEADLINE = ("probe", "test")  # without them nothing that was learned could be judged
LOOK_SECONDS = 0.5  # between looks at what the user wants, while answers come in
IN_FLIGHT = 2  # chunks: one is rendered while the other is on the wire

Result = TypeVar("Result")


@dataclass(frozen=True)
class Source:
    """The connection as a job sees it."""

    price: Price
    limits: Limits
    score_kind: ScoreKind
    input_size: int
    labels: int  # known before the probe; 0: unknown
    enlarges_below: int = 0  # pixels; the service stretches smaller images itself

    @property
    def chunk(self) -> int:
        """Images that go out in about CHUNK_SECONDS at the account's rate."""
        rate = self.limits.requests_per_second * self.limits.max_batch
        return int(min(LARGEST_CHUNK, max(1, rate * CHUNK_SECONDS)))


@dataclass(frozen=True)
class Bench:
    """Made once per worker by the wiring."""

    jobs: Jobs
    ledger: Ledger
    endpoints: Endpoints
    dataset_folder: Callable[[str], Path]
    source: Callable[[str], Source]
    gateway: Callable[[str, str, int], AbstractAsyncContextManager[Gateway]]  # job id, connection id, fence
    stopping: Callable[[], bool]
    segment_seconds: float = 60.0


@dataclass
class Run:
    """One segment of one job."""

    bench: Bench
    job_id: str
    fence: int
    spec: JobSpec
    method: Method
    plan: Plan
    source: Source
    data: Dataset
    size: int  # side of the source image, pixels
    gateway: Gateway
    meter: Meter
    best: float  # validation accuracy of the best program so far, which need not rise; -1 before the first
    left_out: dict[str, list[int]]  # by split: images the provider will not score
    version: str  # of the source model, that the answers so far are of; "" before the first
    short: BudgetExhausted | None = None  # the money ended before a pass over a whole split did
    warned: set[str] = field(default_factory=set[str])  # codes of the concerns told in this segment
    best_loss: float = 0.0  # its validation loss; 0: judged before this segment
    started: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises Interrupted when the user or the process wants a stop, StaleFence when another worker has
        the job."""
        if self.bench.stopping() or self.bench.jobs.wanted(self.job_id, self.fence) != "run":
            raise Interrupted

    def in_time(self, phase: str) -> None:
        """Raises TimeoutError when learning is past the deadline (the final test still runs)."""
        deadline = self.spec.limits.deadline
        if deadline is not None and phase not in PHASES_PAST_DEADLINE and time.time() >= deadline.timestamp():
            raise TimeoutError

    def segment_over(self) -> bool:
        return time.monotonic() - self.started > self.bench.segment_seconds

    def report(self, phase: str) -> None:
        """Write the progress of this moment."""
        cost = self.bench.ledger.cost(self.job_id)
        progress = self.meter.progress(phase, cost.queries_spent, time.time(), self.gateway.pace.held_until)
        self.bench.jobs.progress(self.job_id, self.fence, progress)


@dataclass(frozen=True)
class Answered:
    """Scores (V, n, K) under `labels` (K,); NaN = censored, a row of NaN = no answer."""

    labels: tuple[str, ...]
    scores: Scores
    rejected: dict[int, ProviderError] = field(default_factory=dict[int, ProviderError])  # by image

    def under(self, labels: tuple[str, ...]) -> Scores:
        """The same scores in the column order of `labels`; a label never answered is NaN."""
        column = {label: i for i, label in enumerate(self.labels)}
        empty = np.full((*self.scores.shape[:2], 1), np.nan)
        wide = np.concatenate([self.scores, empty], axis=2)
        return wide[:, :, [column.get(label, -1) for label in labels]]


async def ask(
    run: Run, views: tuple[View, ...], images: Images, phase: str, *, keep: int = 0, cached: bool = False
) -> Answered:
    """Every view of every image, scored, in chunks.

    `keep` queries of the budget stay untouched (the final test's); `cached` takes what is paid already and
    sends nothing. Raises BudgetExhausted (the job's own; the connection's and key's are a QuotaExhausted),
    Interrupted, StaleFence, TimeoutError and what the gateway raises; by then replies under way have been
    waited for.
    """
    await asyncio.to_thread(run.check)
    try:
        return await watched(run, phase, _chunks(run, views, images, phase, keep, cached))
    except BudgetExhausted as stop:
        if stop.scope == run.job_id:
            raise
        whose = "key" if stop.code == "key_budget_exhausted" else "connection"
        raise QuotaExhausted(
            f"The {whose}'s own budget is used up: {stop.detail}",
            code=f"{whose}_budget_exhausted",
            hint=f"Raise the {whose}'s budget, then resume the job.",
        ) from stop


async def watched(run: Run, phase: str, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns. Meanwhile its progress is written, and a wish to stop is seen: raises as
    `Run.check` does, once `work` has been cancelled."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_SECONDS))[0]:
            with suppress(Unusable):  # the gateway will notice by itself, and holds answers that are paid
                await asyncio.to_thread(run.check)
                await asyncio.to_thread(run.report, phase)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _chunks(
    run: Run, views: tuple[View, ...], images: Images, phase: str, keep: int, cached: bool
) -> Answered:
    rows = max(1, run.source.chunk // len(views))
    parts: list[Answers] = []
    under_way: deque[asyncio.Task[Answers]] = deque()
    keep_micros, began = keep * run.source.price.micros, time.monotonic()
    try:
        for start in range(0, len(images), rows):
            if cached:
                run.meter.read_back(time.monotonic() - began, start / len(images))
            else:
                run.in_time(phase)
            pixels = await asyncio.to_thread(render_many, views, images[start : start + rows])
            asking = run.gateway.ask(
                pixels, keep_micros=keep_micros, keep_queries=keep, cache_only=cached, purpose=phase
            )
            under_way.append(asyncio.create_task(asking))
            if len(under_way) == IN_FLIGHT:
                parts.append(await under_way.popleft())
        while under_way:
            parts.append(await under_way.popleft())
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        run.meter.read_back(0.0, 1.0)
    await asyncio.to_thread(run.report, phase)
    return _join(parts, len(views), rows)


def _join(parts: list[Answers], views: int, rows: int) -> Answered:
    """Chunks side by side. Label tuples only ever grow at the end, so padding aligns them."""
    if not parts:  # no images: all of them are left out
        return Answered((), np.empty((views, 0, 0)))
    labels = max((part.labels for part in parts), key=len)
    blocks = [
        np.pad(part.scores, ((0, 0), (0, len(labels) - part.scores.shape[1])), constant_values=np.nan)
        for part in parts
    ]
    rejected = {
        n * rows + index % (len(part.scores) // views): error
        for n, part in enumerate(parts)
        for index, error in part.rejected.items()
    }
    scores = np.concatenate([b.reshape(views, len(b) // views, len(labels)) for b in blocks], axis=1)
    return Answered(labels, scores, rejected)
