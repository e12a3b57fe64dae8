"""The last stretch of every search: score the chosen views on all images, 1, 2, 4, ... of them at a time.

Each prefix of the order is judged on the validation images as soon as it is paid for, so that whatever
stops the money leaves the best program it bought. What was paid for a shorter prefix is kept while it is not
too long for a checkpoint; if it is, the images are asked again, which costs nothing but their rendering.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Arrays, Ask, MethodState, Scores, Split
from app.methods import choice
from app.methods.candidates import candidates
from app.methods.problem import Problem

VAL, TRAIN, DONE = "validate", "fit", "done"
SPLITS: dict[str, Split] = {VAL: "val", TRAIN: "train"}
MOST_KEPT = 2_000_000  # scores that a checkpoint holds


def begin(order: list[list[int]]) -> tuple[str, dict[str, Any]]:
    """Phase and meta members to start from; `order` are candidates, the best first."""
    return VAL, {"order": order, "prefix": 1}


def ask(problem: Problem, state: MethodState) -> Ask | None:
    """Validation images first, then training images, of the views of the prefix whose scores are not kept."""
    if state.phase == DONE:
        return None
    split = SPLITS[state.phase]
    known = len(state.arrays.get(split, ()))
    views = candidates(problem.size, problem.seed, state.meta["order"][known : state.meta["prefix"]])
    rows = np.arange(len(problem.labels[split]))
    return Ask(views, rows, split, "evaluate" if split == "val" else "select")


def tell(
    problem: Problem,
    state: MethodState,
    scores: Scores,
    unseen: NDArray[np.bool_],
    fused: choice.Fused = False,
) -> MethodState:
    """Scores (V, n, K) of what was asked; `unseen` (N,): training images without a part in the order."""
    split = SPLITS[state.phase]
    known = state.arrays.get(split)
    scores = scores if known is None else np.concatenate([known, scores])
    if state.phase == VAL:
        return choice.following(state, TRAIN, {}, {**_kept(state), "val": scores}, {})
    order, prefix, val = state.meta["order"], state.meta["prefix"], state.arrays["val"]
    views = candidates(problem.size, problem.seed, order[:prefix])
    candidate = choice.judged(problem, views, scores, val, unseen, fused)
    if prefix == len(order):
        return choice.following(state, DONE, {}, {}, {"views": float(prefix)}, candidate)
    kept = {"train": scores, "val": val} if scores.size + val.size <= MOST_KEPT else {}
    longer = {"prefix": min(2 * prefix, len(order))}
    return choice.following(state, VAL, longer, kept, {"views": float(prefix)}, candidate)


def _kept(state: MethodState) -> Arrays:
    return {name: state.arrays[name] for name in SPLITS.values() if name in state.arrays}
