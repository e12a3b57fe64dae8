"""From paid scores to a program: fit a head, judge it on validation images, keep the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.contracts import Arrays, Labels, MethodState, Scores, Split, TargetScores
from app.methods.heading import Head
from app.methods.problem import Problem
from app.reprogramming import program as programs
from app.reprogramming.mapping import LabelMapping, log_scores
from app.reprogramming.program import Program, feature_columns
from app.reprogramming.transform import View

#: Whether the head may read compact pixel features beside the scores; "auto": where that clears scores alone.
Fused: TypeAlias = Literal["auto"] | bool

BEST = "best"  # the array that holds the best program's bytes
RECORD = "plain"  # the array that holds the plain program's record
LEADER = "leader"  # the array that holds the best program's record
LEAST_SCORE = 1e-6  # below this a target score says no more
LEAST_ERROR = 1e-6  # below this a standard error is one of arithmetic


@dataclass(frozen=True, eq=False)
class Judged:
    """A program and its record: what it made of images that took no part in making it.

    record (2, N + M): right or wrong, and cross-entropy, of the N training images (out of fold), then of
    the M validation images; NaN for training images that the choice of the program has seen.
    """

    program: Program
    record: NDArray[np.float64]
    validation: int  # M

    @property
    def accuracy(self) -> float:
        """On the validation images."""
        return float(self.record[0, -self.validation :].mean())

    @property
    def loss(self) -> float:
        """Cross-entropy on the validation images."""
        return float(self.record[1, -self.validation :].mean())

    def beats(self, other: NDArray[np.float64]) -> bool:
        """Better than another program on all images on both records, of which the validation images are the
        lesser part: more often right and surer of the truth, each gain in standard errors of the paired
        difference. The count of right answers alone is too coarse to tell programs apart."""
        gain, worse = self._over(other)
        return round(_errors(gain) - _errors(worse), 3) > 0

    def clears(self, plain: NDArray[np.float64]) -> bool:
        """Better than the plain program by a standard error of the paired difference on all images on record,
        in accuracy or, without falling behind in that, in the loss, which says more on few images. The best
        of many judgements is better by luck alone."""
        gain, worse = self._over(plain)
        return _certain(gain) or (gain.mean() >= 0 and _certain(-worse))

    def _over(self, other: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2, n) differences to another record, on the images that are on both."""
        shorter = self.record.shape[1] - other.shape[1]  # older checkpoints: validation images alone
        other = np.pad(other, ((0, 0), (shorter, 0)), constant_values=np.nan)
        on_record = ~np.isnan(self.record[0]) & ~np.isnan(other[0])
        return (self.record - other)[:, on_record]


def _certain(gains: NDArray[np.float64]) -> bool:
    return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))


def _errors(gains: NDArray[np.float64]) -> float:
    """The mean in standard errors; what arithmetic alone differs in is none."""
    return float(gains.mean() / max(gains.std() / np.sqrt(len(gains)), LEAST_ERROR))


def columns(problem: Problem, scores: Scores) -> Scores:
    """(V, n, K) scores to the (n, V * K) log-scores that fitted heads read. An image without an answer (a row
    of NaN) has all its labels censored."""
    return feature_columns(log_scores(scores, problem.floor, problem.score_kind))


def assembled(
    problem: Problem, views: Sequence[View], mapping: LabelMapping, pixel_features: bool = False
) -> Program:
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
        encoder=problem.encoder,
        pixel_features=pixel_features,
        background=problem.background,
    )


def judged(
    problem: Problem,
    views: Sequence[View],
    train: Scores,
    val: Scores,
    unseen: NDArray[np.bool_],
    fused: Fused = False,
) -> Judged:
    """The best head on the views' scores, (V, n, K) of all training and all validation images; with `fused`
    on pixel features beside them ("auto": where that is better by a standard error)."""
    if fused is True:
        return headed(problem, views, train, val, unseen, Head(fused=True))
    alone = headed(problem, views, train, val, unseen, Head())
    if fused is False:
        return alone
    both = headed(problem, views, train, val, unseen, Head(fused=True))
    return both if both.clears(alone.record) else alone


def headed(
    problem: Problem,
    views: Sequence[View],
    train: Scores,
    val: Scores,
    unseen: NDArray[np.bool_],
    head: Head,
) -> Judged:
    """These views with this kind of head.

    A head fitted on training images alone is judged on the validation images, and one fitted without their
    fold on the training images `unseen` (N,) by the choice of views. The head that is served is fitted on
    both splits, which the judgement of that one program allows.
    """
    splits: tuple[Split, Split] = ("train", "val")
    x = np.concatenate([head.columns(problem, train, "train"), head.columns(problem, val, "val")])
    y = np.concatenate([problem.labels[split] for split in splits])
    together = None if problem.groups is None else np.concatenate([problem.groups[split] for split in splits])
    aside = np.arange(len(y)) >= len(problem.labels["train"])
    served, said = head.judge(problem, x, y, together, aside)
    record = verdict(said, y)
    record[:, : len(unseen)][:, ~unseen] = np.nan
    return Judged(assembled(problem, views, served, head.fused), record, int(aside.sum()))


def judged_by_validation(problem: Problem, program: Program, target: TargetScores) -> Judged:
    """A program that all training images had a part in, by its target scores (M, T) of validation images."""
    blank = np.full((2, len(problem.labels["train"])), np.nan)
    record = np.concatenate([blank, verdict(target, problem.labels["val"])], axis=1)
    return Judged(program, record, len(target))


def verdict(scores: TargetScores, labels: Labels) -> NDArray[np.float64]:
    """(2, n): whether each image is classified rightly, and its cross-entropy."""
    of_truth = scores[np.arange(len(labels)), labels]
    return np.stack([scores.argmax(axis=1) == labels, -np.log(np.maximum(of_truth, LEAST_SCORE))])


def plain_view(problem: Problem) -> View:
    """The program that does nothing: the image, stretched to the source size. Its scores are the probe."""
    return View(size=problem.size)


def plain(problem: Problem, fused: Fused = False) -> Judged:
    """What the probe alone buys: the plain view with the best head. Every method starts from it."""
    train, val = problem.probe["train"][None], problem.probe["val"][None]
    everyone = np.ones(len(problem.labels["train"]), bool)
    return judged(problem, (plain_view(problem),), train, val, everyone, fused)


def opening(
    problem: Problem,
    phase: str,
    meta: Mapping[str, Any],
    arrays: Arrays | None = None,
    fused: Fused = False,
) -> MethodState:
    """A method's first state: the plain program is the best so far, with pixel features where they may help;
    what every other program has to clear is the plain one without them."""
    bare = plain(problem)
    first = bare
    if fused is not False:
        both = plain(problem, True)
        first = both if both.clears(bare.record) and both.beats(bare.record) else bare
    known = {"best_accuracy": first.accuracy, "best_loss": first.loss}
    kept = {BEST: _frozen(first.program), RECORD: bare.record, LEADER: first.record, **(arrays or {})}
    metrics = {"val_accuracy": first.accuracy, "val_loss": first.loss}
    return MethodState(0, phase, {**meta, **known}, _laid_out(kept), metrics)


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
    kept = {name: state.arrays[name] for name in (BEST, RECORD, LEADER) if name in state.arrays}
    told = dict(metrics)
    if candidate is not None:
        told["candidate_val_accuracy"] = candidate.accuracy
        if candidate.clears(kept[RECORD]) and candidate.beats(_leader(state, candidate.validation)):
            best = {"best_accuracy": candidate.accuracy, "best_loss": candidate.loss}
            kept |= {BEST: _frozen(candidate.program), LEADER: candidate.record}
        told |= {"val_accuracy": best["best_accuracy"], "val_loss": best["best_loss"]}
    kept = _laid_out({**arrays, **kept})
    return MethodState(state.step + 1, phase, {**state.meta, **meta, **best}, kept, told)


def _laid_out(arrays: Arrays) -> Arrays:
    """In memory as a checkpoint gives them back: the last bit of a sum depends on it."""
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _leader(state: MethodState, validation: int) -> NDArray[np.float64]:
    """The record of the best program so far; of an older checkpoint, its means over the validation images."""
    if LEADER in state.arrays:
        return state.arrays[LEADER]
    means = np.array([[state.meta["best_accuracy"]], [state.meta["best_loss"]]])
    return np.repeat(means, validation, axis=1)


def best(state: MethodState) -> Program:
    """The best program so far."""
    return programs.from_bytes(state.arrays[BEST].tobytes())


def _frozen(program: Program) -> NDArray[np.uint8]:
    return np.frombuffer(programs.to_bytes(program), np.uint8)
