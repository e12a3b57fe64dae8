"""The last stretch of every search: score the chosen views on all images, 1, 2, 4, ... of them at a time.

Each prefix of the order is judged on the validation images as soon as it is paid for, so that whatever
stops the money leaves the best program it bought. What was paid for a shorter prefix comes back free.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Ask, MethodState, Scores
from app.methods import choice
from app.methods.candidates import candidates
from app.methods.problem import Problem

VAL, TRAIN, DONE = "validate", "fit", "done"


def begin(order: list[list[int]]) -> tuple[str, dict[str, Any]]:
    """Phase and meta members to start from; `order` are candidates, the best first."""
    return VAL, {"order": order, "prefix": 1}


def ask(problem: Problem, state: MethodState) -> Ask | None:
    """Validation images first, then training images, of the prefix."""
    if state.phase == DONE:
        return None
    views = candidates(problem.size, problem.seed, state.meta["order"][: state.meta["prefix"]])
    if state.phase == VAL:
        return Ask(views, np.arange(len(problem.labels["val"])), "val", "evaluate")
    return Ask(views, np.arange(len(problem.labels["train"])), "train", "select")


def tell(
    problem: Problem,
    state: MethodState,
    scores: Scores,
    unseen: NDArray[np.bool_],
    fused: choice.Fused = False,
) -> MethodState:
    """Scores (V, n, K) of the prefix; `unseen` (N,): training images without a part in the order."""
    if state.phase == VAL:
        return choice.following(state, TRAIN, {}, {"val": scores}, {})
    order, prefix = state.meta["order"], state.meta["prefix"]
    views = candidates(problem.size, problem.seed, order[:prefix])
    candidate = choice.judged(problem, views, scores, state.arrays["val"], unseen, fused)
    phase = DONE if prefix == len(order) else VAL
    longer = {"prefix": min(2 * prefix, len(order))}
    return choice.following(state, phase, longer, {}, {"views": float(prefix)}, candidate)
