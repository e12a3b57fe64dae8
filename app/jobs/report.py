"""The one look at the test split: the program beside its baselines, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images, Labels, Scores, Split, TargetScores
from app.methods import Problem
from app.methods.choice import assembled
from app.methods.heading import Head
from app.reprogramming import mapping, metrics, picture
from app.reprogramming import program as programs
from app.reprogramming.mapping import LabelMapping
from app.reprogramming.program import Program
from app.reprogramming.transform import View

FINAL_STEP = 2**30  # the checkpoint of the finished program sorts after every step's

#: A figure of chosen rows of the test images; None where they do not define it.
Figure = Callable[[NDArray[np.intp]], float | None]
LEARNING: tuple[Split, ...] = ("train", "val")
ROUNDS = 300  # of the bootstrap intervals

#: name -> (short, what it is)
BASELINES = {
    "majority": ("Commonest class", "always answers the class that is most frequent; asks nothing"),
    "mapping_only": ("Label mapping alone", "the plain image, source labels grouped; 1 query"),
    "linear_head": ("Linear head", "the plain image, a linear model on its scores; 1 query"),
    "raw_pixels": ("Your pixels alone", "the best classic model on pixels; needs no API"),
}

NO_VERDICT: dict[str, Any] = {
    "program_helps": None,
    "p_value": None,
    "sentence": "The money ran out before any test image was answered: the program is not judged.",
}


class Rival(NamedTuple):
    """A baseline on the test split: what it predicts (N,), the training queries it needed, and its target
    scores (N, T) where it has any."""

    predicted: Labels
    queries: int
    said: TargetScores | None = None


def judge(
    problem: Problem,
    program: Program,
    images: Images,
    labels: Labels,
    scores: Scores,
    paid: dict[Split, Scores] | None = None,
    records: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """`test`, `baselines` and `verdict` of the job object.

    `scores` is (1 + V, n, K): the plain view first, then the program's. Images without an answer are left
    out and counted in `test.unanswered`. Every rival is fitted on the same training and validation images.
    `paid` are the program's scores (V, n, K) of those: with them the verdict says what its parts add.
    `records` (n, F) are the features of test records, where the images were drawn from such.
    """
    answered = ~np.isnan(scores).all(axis=2).any(axis=0)
    if not answered.any():
        return {"test": {"images": 0, "unanswered": len(labels)}, "baselines": {}, "verdict": NO_VERDICT}
    images, labels, scores = images[answered], labels[answered], scores[:, answered]
    records = None if records is None else records[answered]
    target = programs.score(program, scores[1:], images)
    mine = target.argmax(axis=1) == labels
    names, beside = problem.target_labels, rivals(problem, images, scores[0], records)
    right = {name: rival.predicted == labels for name, rival in beside.items()}
    parts = {"program": mine, "pixels": right["raw_pixels"]}
    if paid is not None:
        name, predicted = _other_part(problem, program, paid, images, scores[1:])
        parts[name] = predicted == labels
    verdict = metrics.verdict(
        mine,
        right["linear_head"],
        right["raw_pixels"],
        queries_per_prediction=len(program.views),
        scores_alone=parts.get("scores"),
        ground="pixels" if records is None else "features",
        plain=all(view.plain for view in program.views),
    )
    return {
        "test": {
            **_accuracy(mine),
            "images": len(labels),
            "unanswered": int((~answered).sum()),
            "queries_per_prediction": len(program.views),
            **describe(target, labels, names, problem.seed, beside["linear_head"].predicted),
        },
        "baselines": {
            name: {
                **_accuracy(right[name]),
                "queries": rival.queries,
                **_resampled(_figures(labels, rival.predicted, rival.said), len(labels), problem.seed),
            }
            for name, rival in beside.items()
        },
        "verdict": verdict | {"parts": {name: _accuracy(flags) for name, flags in parts.items()}},
    }


def _other_part(
    problem: Problem, program: Program, paid: dict[Split, Scores], images: Images, scores: Scores
) -> tuple[str, Labels]:
    """What the same views predict from (V, n, K) scores by a head that reads pixels too, or no longer."""
    other = rehead(problem, program, paid, Head(fused=not program.pixel_features))
    name = "scores" if program.pixel_features else "scores_and_pixels"
    return name, programs.score(other, scores, images).argmax(axis=1)


def rehead(problem: Problem, program: Program, paid: dict[Split, Scores], head: Head) -> Program:
    """The program's views under another head, fitted on the paid scores (V, n, K) of both learning splits.
    An image without an answer has all its labels censored."""
    columns = np.concatenate([head.columns(problem, paid[split], split) for split in LEARNING])
    labels = np.concatenate([problem.labels[split] for split in LEARNING])
    groups = None if problem.groups is None else np.concatenate([problem.groups[s] for s in LEARNING])
    return assembled(problem, program.views, head.fit(problem, columns, labels, groups), head.fused)


def rivals(
    problem: Problem, images: Images, plain: Scores, records: NDArray[np.float64] | None = None
) -> dict[str, Rival]:
    """Each baseline on the test split. `plain` (n, K) are the scores of the plain images."""
    found = free_rivals(problem, images, records) | paid_rivals(problem, images, plain)
    return {name: found[name] for name in BASELINES}


def free_rivals(
    problem: Problem, images: Images, records: NDArray[np.float64] | None = None
) -> dict[str, Rival]:
    """Those that ask no source model. `raw_pixels` learns from the features of the records themselves, too,
    where the images were drawn from such."""
    labels = np.concatenate([problem.labels[split] for split in LEARNING])
    known = picture.features(np.concatenate([problem.images[split] for split in LEARNING]))
    asked = picture.features(images)
    if problem.records is not None and records is not None:
        learned = np.concatenate([problem.records[split] for split in LEARNING])
        known = np.concatenate([learned, known], axis=1)
        asked = np.concatenate([records, asked], axis=1)
    return {
        "majority": Rival(np.full(len(images), metrics.majority(labels), dtype=np.intp), 0),
        "raw_pixels": Rival(metrics.raw_pixel_baseline(known, labels, asked, problem.seed), 0),
    }


def paid_rivals(problem: Problem, images: Images, plain: Scores) -> dict[str, Rival]:
    """Those that learn from the source model's scores of the plain images, and read `plain` (n, K)."""
    labels = np.concatenate([problem.labels[split] for split in LEARNING])
    scores = np.concatenate([problem.probe[split] for split in LEARNING])
    groups = None if problem.groups is None else np.concatenate([problem.groups[s] for s in LEARNING])
    classes, known = problem.classes, mapping.shares(scores, problem.score_kind)
    per_class = min(10, scores.shape[1] // classes)
    mapped = (  # fewer source labels than classes: no label can stand for one class alone
        mapping.frequency_mapping(known, labels, classes, per_class)
        if per_class >= 1
        else mapping.bayesian_mapping(known, labels, classes)
    )
    log_scores = mapping.log_scores(scores, problem.floor, problem.score_kind)
    view = mapping.view_width(scores.shape[1], problem.score_kind)
    head = mapping.linear_mapping(log_scores, labels, classes, groups=groups, seed=problem.seed, view=view)
    found = {"mapping_only": mapped, "linear_head": head}
    said = {name: _plain_program(problem, images, one, plain) for name, one in found.items()}
    return {name: Rival(scores.argmax(axis=1), len(labels), scores) for name, scores in said.items()}


def _plain_program(problem: Problem, images: Images, head: LabelMapping, plain: Scores) -> TargetScores:
    """(n, T) of the plain program with this mapping, from (n, K) scores."""
    program = assembled(problem, (View(size=problem.size),), head)
    return programs.score(program, plain[None], images)


def _accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    ci95 = metrics.ends(int(right.sum()), len(right))
    return {"accuracy": round(float(right.mean()), 6), "ci95": ci95}


def describe(
    target: TargetScores, labels: Labels, names: tuple[str, ...], seed: int = 0, head: Labels | None = None
) -> dict[str, Any]:
    """Everything else one may want to know of (N, T) target scores against labels, with 95 % intervals:
    Wilson's of a class's figures, by bootstrap of what is taken over all classes. Each class has the linear
    head's figures beside it where `head` (N,) says what that predicts."""
    predicted = target.argmax(axis=1)
    confusion = metrics.confusion(labels, predicted, len(names))
    beside = None if head is None else metrics.confusion(labels, head, len(names))
    return {
        **_resampled(_figures(labels, predicted, target), len(labels), seed),
        "confusion": confusion.tolist(),
        "labels": list(names),
        "per_class": classes(confusion, names, beside),
    }


def _figures(labels: Labels, predicted: Labels, said: TargetScores | None) -> dict[str, Figure]:
    """Of predictions (N,), and of the target scores (N, T) they come from, where there are any."""
    out: dict[str, Figure] = {
        "balanced_accuracy": lambda rows: metrics.balanced_accuracy(labels[rows], predicted[rows]),
        "macro_f1": lambda rows: metrics.macro_f1(labels[rows], predicted[rows]),
    }
    if said is not None:
        out["auroc"] = lambda rows: metrics.auroc(said[rows], labels[rows])
        out["ece"] = lambda rows: metrics.ece(said[rows], labels[rows])
    return out


def _resampled(figures: Mapping[str, Figure], n: int, seed: int) -> dict[str, Any]:
    """Each figure of n images, and its interval."""
    told = dict[str, Any]()
    for name, figure in figures.items():
        value = figure(np.arange(n))
        told[name] = None if value is None else round(value, 6)
        told[f"{name}_ci95"] = None if value is None else _interval(figure, value, n, seed)
    return told


def classes(
    confusion: NDArray[np.intp], names: Sequence[str], head: NDArray[np.intp] | None
) -> list[dict[str, Any]]:
    """Each class's figures from a (T, T) confusion, with those of the linear head's beside them."""
    rows = metrics.per_class(confusion, names)
    if head is None:
        return rows
    same = ("label", "support")
    return [
        row | {"linear_head": {name: value for name, value in beside.items() if name not in same}}
        for row, beside in zip(rows, metrics.per_class(head, names), strict=True)
    ]


def _interval(figure: Figure, value: float, n: int, seed: int) -> list[float]:
    """A resampled set of one class has no ROC curve: there the figure itself stands in."""

    def of(rows: NDArray[np.intp]) -> float:
        found = figure(rows)
        return value if found is None else found

    low, high = metrics.bootstrap_interval(of, n, seed, ROUNDS)
    return [round(low, 6), round(high, 6)]


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """The few numbers of a judged program that belong beside its checkpoint."""
    test = document["test"]
    return {"test_accuracy": test["accuracy"], "test_ci95": test["ci95"]} if test["images"] else {}
