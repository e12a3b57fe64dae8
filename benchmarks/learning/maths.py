"""What the maths costs by itself: a head fitted again on many answers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from app.reprogramming.mapping import best_head, linear_mapping
from app.reprogramming.ridge import loo_ridge

IMAGES, LABELS, CLASSES, TIMES = 2_000, 1_000, 10, 3


def refit() -> dict[str, Any]:
    """CPU seconds on one thread, the least of a few, of each way to fit 2,000 images x 1,000 labels."""
    rng = np.random.default_rng([IMAGES, LABELS])
    labels = rng.integers(CLASSES, size=IMAGES)
    features = rng.standard_normal((IMAGES, LABELS)) + 0.3 * rng.standard_normal((CLASSES, LABELS))[labels]
    ways = {
        "leave-one-out ridge": lambda: loo_ridge(features, labels, CLASSES),
        "a logistic head of given penalty": lambda: linear_mapping(features, labels, CLASSES, 1e-3),
        "a logistic head, penalty by cross-validation": lambda: linear_mapping(features, labels, CLASSES),
        "the best head": lambda: best_head(features, labels, CLASSES, view=LABELS),
    }
    found: dict[str, float] = {}
    with threadpool_limits(1):
        for name, fit in ways.items():
            spent: list[float] = []
            for _ in range(TIMES):
                began = time.process_time()
                fit()
                spent.append(time.process_time() - began)
            found[name] = round(min(spent), 3)
    listed = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items())
    sentence = (
        f"Fitting {IMAGES:,} images x {LABELS:,} labels to {CLASSES} classes, CPU of one thread, the least "
        f"of {TIMES}: {listed}. Goal: under 1 s."
    )
    return {"seconds": found, "sentence": sentence}
