"""What the next dollars buy: a learning curve fitted to the best validation accuracy so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.jobs.spec import Money

AHEAD = (1.25, 1.5, 2.0, 4.0)  # times the queries paid so far
LEAST_POINTS = 3
POWERS = (0.25, 0.5, 1.0, 2.0)
GRID = 60  # values of the curve's end
LEVELS = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def forecast(
    points: Sequence[tuple[int, float]], validation_images: int, price_micros: int, currency: str
) -> list[dict[str, Any]] | None:
    """Expected validation accuracy after more queries; None before three judgements.

    points: (queries paid, best validation accuracy so far), in order. The curve is a(q) = end - (end - a0)
    (q0 / q)^power; every end and power of a grid is weighed by its likelihood (the points share their images,
    so together they count as one draw of them). Never below the best so far: that
    program is kept. p10, p50 and p90 are quantiles over the weighed curves and say nothing of the test split.
    """
    kept = [(q, a) for q, a in points if q > 0]
    if len(kept) < LEAST_POINTS or not validation_images:
        return None
    queries, seen = (np.array(column, float) for column in zip(*kept, strict=True))
    best, start = float(seen.max()), float(seen[0])
    ends, powers = (axis.ravel() for axis in np.meshgrid(np.linspace(best, 1.0, GRID), POWERS))

    def curves(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return ends[:, None] - (ends - start)[:, None] * (queries[0] / at) ** powers[:, None]

    misfit = ((seen - curves(queries)) ** 2).mean(axis=1)
    variance = max(best * (1 - best), 0.25 / validation_images) / validation_images
    weights = np.exp(-0.5 * (misfit - misfit.min()) / variance)
    told: list[dict[str, Any]] = []
    for times in AHEAD:
        more = max(1, round(queries[-1] * (times - 1)))
        reached = np.maximum(best, curves(queries[-1:] + more)[:, 0])
        order = np.argsort(reached, kind="stable")
        share = np.cumsum(weights[order]) / weights.sum()
        values = reached[order][np.searchsorted(share, list(LEVELS.values()))]
        told.append(
            {
                "more_queries": more,
                "more_cost": Money.of(more * price_micros, currency).model_dump(),
                "val_accuracy": {name: round(float(v), 6) for name, v in zip(LEVELS, values, strict=True)},
            }
        )
    return told
