"""Canaries of endpoints: does the source model still answer as it did?

N fixed images, made up from a seed and shown as the endpoint's program shows its images, are asked past the
cache on a schedule, under a cap of their own. The first run of a version keeps the answers; each later run
compares. What moved by more than the tolerance marks the endpoint `degraded`, until answers are back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np

from app.contracts import Images
from app.errors import ReprogError
from app.gateway.query import Gateway
from app.jobs.progress import rfc3339
from app.reprogramming import program as programs
from app.reprogramming.program import Program
from app.reprogramming.transform import render_many
from app.storage.canaries import CanaryRecord, State, scope
from app.storage.endpoints import Endpoints, LiveVersion
from app.storage.jobs import Jobs

log = logging.getLogger(__name__)

REACH = {"percent": 100.0, "severity": 6.0, "likelihood": 4.0, "logit": 10.0}  # of a kind's scores; else 1


class Canary:
    """One per worker; several at once do no harm."""

    def __init__(
        self,
        endpoints: Endpoints,
        jobs: Jobs,
        gateway: Callable[[str, str], AbstractAsyncContextManager[Gateway]],  # scope, connection id
        *,
        every: float = 5.0,
    ) -> None:
        self._endpoints, self._jobs, self._open, self._every = endpoints, jobs, gateway, every

    def start(self, stopping: threading.Event) -> None:
        """Look until `stopping`."""
        threading.Thread(target=self._keep_looking, args=(stopping,), name="canary", daemon=True).start()

    def _keep_looking(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._every):
            try:
                self.look()
            except Exception:  # the database may be away for a while
                log.exception("running the canaries failed")

    def look(self) -> list[str]:
        """Run what is due; returns the names of those endpoints."""
        due = self._endpoints.canaries.due()
        for name, canary in due:
            live = self._endpoints.live(name)
            try:
                answers, facts = asyncio.run(self._ask(live, canary))
            except ReprogError as error:
                log.warning("the canary of endpoint %s could not ask: %s", name, error.detail)
                self._keep(
                    canary, live, canary.state, {"error": {"code": error.code, "detail": error.detail}}
                )
                continue
            self._compare(canary, live, answers, facts)
        return [name for name, _ in due]

    async def _ask(
        self, live: LiveVersion, canary: CanaryRecord
    ) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """(label -> score for each query; queries, cost, model version and the scores' reach)."""
        blob = await asyncio.to_thread(self._jobs.program, live.checkpoint_id)
        program = await asyncio.to_thread(programs.from_bytes, blob)
        async with self._open(scope(live.endpoint_id), live.connection_id) as gateway:
            found = await gateway.ask(pictures(program, canary.queries), purpose="canary", fresh=True)
            facts = {
                "queries": found.sent,
                "cost_micros": found.sent * gateway.account.price.micros,
                "model_version": gateway.model.version or None,
                "reach": REACH.get(gateway.account.provider.info.score_kind, 1.0),
            }
        rows = [
            {label: float(p) for label, p in zip(found.labels, row, strict=True) if np.isfinite(p)}
            for row in found.scores
        ]
        return rows, facts

    def _compare(
        self, canary: CanaryRecord, live: LiveVersion, answers: list[dict[str, float]], facts: dict[str, Any]
    ) -> None:
        reach = facts.pop("reach")
        if canary.baseline is None or canary.version != live.version:
            baseline = {"model_version": facts["model_version"], "answers": answers}
            self._keep(canary, live, "ok", {"moved": 0.0, **facts}, baseline)
            return
        pairs = zip(canary.baseline["answers"], answers, strict=True)
        moved = max(moved_by(before, now) for before, now in pairs) / reach
        state: State = "degraded" if moved > canary.tolerance else "ok"
        facts["model_version_before"] = canary.baseline["model_version"]
        self._keep(canary, live, state, {"moved": moved, **facts})

    def _keep(
        self,
        canary: CanaryRecord,
        live: LiveVersion,
        state: State,
        last: dict[str, Any],
        baseline: dict[str, Any] | None = None,
    ) -> None:
        told = {"at": rfc3339(time.time()), **last}
        version = canary.version if baseline is None else live.version
        self._endpoints.canaries.record(
            canary, live.job_id, state=state, last=told, baseline=baseline or canary.baseline, version=version
        )


def moved_by(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """The largest change of any score of one query, in its own units. A label that one of the two answers
    leaves out is there no higher than its lowest score."""

    def change(label: str) -> float:
        if label in before and label in now:
            return abs(now[label] - before[label])
        score, other = (now[label], before) if label in now else (before[label], now)
        return max(0.0, score - min(other.values(), default=0.0))

    return max(map(change, {**before, **now}), default=0.0)


def pictures(program: Program, count: int) -> Images:
    """(count, H, W, 3): made-up images of the program's own size, each under one of its views in turn."""
    height, width = program.canonical
    cells = np.random.default_rng([2718, count]).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    rows = np.linspace(0, 3.999, height).astype(np.intp)
    columns = np.linspace(0, 3.999, width).astype(np.intp)
    images = cells[:, rows][:, :, columns]
    shown = [render_many((program.views[n % len(program.views)],), images[n : n + 1]) for n in range(count)]
    return np.concatenate(shown)
