"""The one look at the test split: the program beside its baselines, and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images, Labels, Scores
from app.methods import Problem
from app.reprogramming import mapping, metrics, picture
from app.reprogramming import program as programs
from app.reprogramming.mapping import LabelMapping
from app.reprogramming.program import Program
from app.reprogramming.transform import View

FINAL_STEP = 2**30  # the checkpoint of the finished program sorts after every step's


NO_VERDICT: dict[str, Any] = {
    "program_helps": None,
    "p_value": None,
    "sentence": "The money ran out before any test image was answered: the program is not judged.",
}


def judge(
    problem: Problem, program: Program, images: Images, labels: Labels, scores: Scores
) -> dict[str, Any]:
    """`test`, `baselines` and `verdict` of the job object.

    `scores` is (1 + V, n, K): the plain view first, then the program's. Images without an answer are left
    out and counted in `test.unanswered`. Every rival is fitted on the same training and validation images.
    """
    answered = ~np.isnan(scores).all(axis=2).any(axis=0)
    if not answered.any():
        return {"test": {"images": 0, "unanswered": len(labels)}, "baselines": {}, "verdict": NO_VERDICT}
    images, labels, scores = images[answered], labels[answered], scores[:, answered]
    target = programs.score(program, scores[1:], images)
    mine = target.argmax(axis=1) == labels
    beside = rivals(problem, images, scores[0])
    right = {name: predicted == labels for name, (predicted, _) in beside.items()}
    test = {
        **_accuracy(mine),
        "images": len(labels),
        "unanswered": int((~answered).sum()),
        "queries_per_prediction": len(program.views),
        **describe(target, labels, problem.target_labels),
    }
    return {
        "test": test,
        "baselines": {
            name: {**_accuracy(right[name]), "queries": queries} for name, (_, queries) in beside.items()
        },
        "verdict": metrics.verdict(
            mine, right["linear_head"], right["raw_pixels"], queries_per_prediction=len(program.views)
        ),
    }


def rivals(problem: Problem, images: Images, plain: Scores) -> dict[str, tuple[Labels, int]]:
    """Each baseline's predictions on the test split, and the training queries it needed."""
    train_images = np.concatenate([problem.images["train"], problem.images["val"]])
    train_labels = np.concatenate([problem.labels["train"], problem.labels["val"]])
    train_scores = np.concatenate([problem.probe["train"], problem.probe["val"]])
    groups = np.concatenate([problem.groups["train"], problem.groups["val"]]) if problem.groups else None
    classes, paid = problem.classes, len(train_labels)
    per_class = min(10, train_scores.shape[1] // classes)
    mapped = (  # fewer source labels than classes: no label can stand for one class alone
        mapping.frequency_mapping(train_scores, train_labels, classes, per_class)
        if per_class >= 1
        else mapping.bayesian_mapping(train_scores, train_labels, classes)
    )
    log_scores = mapping.log_scores(train_scores, problem.floor, problem.score_kind)
    head = mapping.linear_mapping(log_scores, train_labels, classes, groups=groups, seed=problem.seed)
    return {
        "majority": (np.full(len(images), metrics.majority(train_labels), dtype=np.intp), 0),
        "mapping_only": (_plain_program(problem, images, mapped, plain), paid),
        "linear_head": (_plain_program(problem, images, head, plain), paid),
        "raw_pixels": (
            metrics.raw_pixel_baseline(
                picture.features(train_images), train_labels, picture.features(images), problem.seed
            ),
            0,
        ),
    }


def _plain_program(problem: Problem, images: Images, head: LabelMapping, plain: Scores) -> Labels:
    """What the plain program with this mapping predicts from (n, K) scores."""
    height, width = images.shape[1:3]
    program = Program(
        views=(View(size=problem.size),),
        mapping=head,
        source_labels=problem.source_labels,
        target_labels=problem.target_labels,
        canonical=(height, width),
        floor=problem.floor,
        score_kind=problem.score_kind,
    )
    return programs.score(program, plain[None], images).argmax(axis=1)


def _accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    low, high = metrics.wilson(int(right.sum()), len(right))
    return {"accuracy": round(float(right.mean()), 6), "ci95": [round(low, 6), round(high, 6)]}


def describe(target: Scores, labels: Labels, names: tuple[str, ...]) -> dict[str, Any]:
    """Everything else one may want to know of (N, T) target scores against labels."""
    predicted = target.argmax(axis=1)
    confusion = metrics.confusion(labels, predicted, len(names))
    return {
        "balanced_accuracy": round(metrics.balanced_accuracy(labels, predicted), 6),
        "macro_f1": round(metrics.macro_f1(labels, predicted), 6),
        "auroc": metrics.auroc(target, labels),
        "ece": metrics.ece(target, labels),
        "confusion": confusion.tolist(),
        "labels": list(names),
        "per_class": metrics.per_class(confusion, names),
    }


def flat(document: dict[str, Any]) -> dict[str, float]:
    """The few numbers of a judged program that belong beside its checkpoint."""
    return {"test_accuracy": document["test"]["accuracy"]} if document["test"]["images"] else {}
