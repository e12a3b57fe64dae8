"""From paid scores to a program: fit a head, judge it on validation images, keep the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Arrays, Labels, MethodState, Scores, TargetScores
from app.methods.problem import Problem
from app.reprogramming import program as programs
from app.reprogramming.loss import cross_entropy
from app.reprogramming.mapping import LabelMapping, best_head, log_scores
from app.reprogramming.program import Program, feature_columns
from app.reprogramming.transform import View

BEST = "best"  # the array that holds the best program's bytes
PLAIN = "plain"  # (n,) which validation images the plain program got right


@dataclass(frozen=True, eq=False)
class Judged:
    """A program and what validation images said of it."""

    program: Program
    right: NDArray[np.bool_]  # (n,) validation images it got right
    loss: float  # cross-entropy on them

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    def beats(self, accuracy: float, loss: float) -> bool:
        """More often right; among equals, surer of it."""
        return (self.accuracy, -self.loss) > (accuracy, -loss)

    def clears(self, plain: NDArray[np.bool_]) -> bool:
        """Better than the plain program by a standard error of the paired difference: the best of many
        judgements on few images is better than it by luck alone."""
        gain = self.right.astype(np.float64) - plain
        return bool(gain.mean() > gain.std() / np.sqrt(len(gain)))


def columns(problem: Problem, scores: Scores) -> Scores:
    """(V, n, K) scores to the (n, V * K) log-scores that fitted heads read. An image without an answer (a row
    of NaN) has all its labels censored."""
    return feature_columns(log_scores(scores, problem.floor, problem.score_kind))


def assembled(problem: Problem, views: Sequence[View], mapping: LabelMapping) -> Program:
    """The program of these views and this mapping."""
    height, width = problem.images["train"].shape[1:3]
    return Program(
        views=tuple(views),
        mapping=mapping,
        source_labels=problem.source_labels,
        target_labels=problem.target_labels,
        canonical=(height, width),
        floor=problem.floor,
        score_kind=problem.score_kind,
    )


def judged(problem: Problem, views: Sequence[View], train: Scores, val: Scores) -> Judged:
    """The best head on the views' scores, (V, n, K) of all training and all validation images.

    A head fitted on training images alone is judged on the validation images; the head that is served is
    fitted on both, which the judgement of that one program allows.
    """
    x, z = columns(problem, train), columns(problem, val)
    y, t = problem.labels["train"], problem.labels["val"]
    groups = problem.groups
    apart = None if groups is None else groups["train"]
    together = None if groups is None else np.concatenate([groups["train"], groups["val"]])
    head, _ = best_head(x, y, problem.classes, problem.seed, apart)
    right, loss = verdict(head.apply(z), t)
    all_x, all_y = np.concatenate([x, z]), np.concatenate([y, t])
    served, _ = best_head(all_x, all_y, problem.classes, problem.seed, together)
    return Judged(assembled(problem, views, served), right, loss)


def verdict(scores: TargetScores, labels: Labels) -> tuple[NDArray[np.bool_], float]:
    """Which images are classified rightly (n,), and the cross-entropy."""
    return scores.argmax(axis=1) == labels, float(cross_entropy(scores, labels))


def plain_view(problem: Problem) -> View:
    """The program that does nothing: the image, stretched to the source size. Its scores are the probe."""
    return View(size=problem.size)


def plain(problem: Problem) -> Judged:
    """What the probe alone buys: the plain view with the best head. Every method starts from it."""
    train, val = problem.probe["train"][None], problem.probe["val"][None]
    return judged(problem, (plain_view(problem),), train, val)


def opening(
    problem: Problem, phase: str, meta: Mapping[str, Any], arrays: Arrays | None = None
) -> MethodState:
    """A method's first state: the plain program is the best so far."""
    first = plain(problem)
    known = {"best_accuracy": first.accuracy, "best_loss": first.loss}
    kept = {BEST: _frozen(first.program), PLAIN: first.right, **(arrays or {})}
    metrics = {"val_accuracy": first.accuracy, "val_loss": first.loss}
    return MethodState(0, phase, {**meta, **known}, kept, metrics)


def following(
    state: MethodState,
    phase: str,
    meta: Mapping[str, Any],
    arrays: Arrays,
    metrics: Mapping[str, float],
    candidate: Judged | None = None,
) -> MethodState:
    """The next state, with changed meta members and these arrays beside the best program.

    `candidate` replaces the best when it beats it and clears the plain program. Only a judgement tells
    `val_accuracy`, and it is always that of the program that would be served.
    """
    best = {name: state.meta[name] for name in ("best_accuracy", "best_loss")}
    kept, told = state.arrays[BEST], dict(metrics)
    if candidate is not None:
        told["candidate_val_accuracy"] = candidate.accuracy
        known = best["best_accuracy"], best["best_loss"]
        if candidate.clears(state.arrays[PLAIN]) and candidate.beats(*known):
            best = {"best_accuracy": candidate.accuracy, "best_loss": candidate.loss}
            kept = _frozen(candidate.program)
        told |= {"val_accuracy": best["best_accuracy"], "val_loss": best["best_loss"]}
    merged = {**state.meta, **meta, **best}
    return MethodState(
        state.step + 1, phase, merged, {**arrays, BEST: kept, PLAIN: state.arrays[PLAIN]}, told
    )


def best(state: MethodState) -> Program:
    """The best program so far."""
    return programs.from_bytes(state.arrays[BEST].tobytes())


def _frozen(program: Program) -> NDArray[np.uint8]:
    return np.frombuffer(programs.to_bytes(program), np.uint8)
