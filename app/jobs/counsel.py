"""What a user should hear before and while money is spent: refusals, warnings, and what to expect.

A concern is {code, detail, hint}: shown in the quote, in an event `job.warning` and in `metrics.warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log
from typing import Any

import numpy as np

from app.contracts import MethodState, ScoreKind, Scores
from app.errors import BadRequest
from app.jobs.quote import Plan
from app.jobs.spec import JobSpec, Money
from app.methods import Problem
from app.methods.race import spread
from app.reprogramming import metrics
from app.reprogramming.mapping import kernel_mapping

SMALL_CLASS, GOOD_CLASS = 5, 50  # images
MOST_VIEWS = 16
SCOUTS = 24  # training images that are asked before all others
LEAST_SCOUTS = 12  # answers without which the scouts say nothing
NAMED = 5
#: Share of the head's errors that a searched program took away at 10,000 queries, by queries per prediction:
#: lowest, median and highest, of nine pairs of task and source model with 4, of five with 1 and 2. With 8,
#: seen on the five, lowest and median are taken to be about those with 4.
#: Digits gain most, photographs of skin least.
REMOVED = {
    1: {"low": 0.04, "likely": 0.14, "high": 0.50},
    2: {"low": 0.05, "likely": 0.16, "high": 0.72},
    4: {"low": 0.05, "likely": 0.24, "high": 0.81},
    8: {"low": 0.05, "likely": 0.25, "high": 0.83},
}


def concerns(
    spec: JobSpec,
    per_class: Mapping[str, int],
    source_labels: int,
    kind: ScoreKind,
    plan: Plan,
) -> list[dict[str, str]]:
    """Warnings about a job before anything is spent. `per_class` are images of all splits; source_labels 0:
    not known yet. Raises BadRequest `too_many_classes` with the number that would do."""
    found = [
        _concern(
            "small_class",
            f"Class {name!r} has only {count} images.",
            f"{SMALL_CLASS} are the least that can be learned from, {GOOD_CLASS} are better: send "
            f"{SMALL_CLASS - count} more at least.",
        )
        for name, count in sorted(per_class.items())
        if count < SMALL_CLASS
    ][:NAMED]
    if source_labels:
        refuse_blunt(len(per_class), source_labels, kind, plan.views)
        found += _narrow(len(per_class), source_labels, kind, plan.views)
    return found


def enlarged(side: int, least: int) -> list[dict[str, str]]:
    """A warning where the service stretches images of `side` pixels to its own `least`."""
    if side >= least:
        return []
    return [
        _concern(
            "enlarged_by_service",
            f"Images go out at {side} pixels; the service stretches those below {least} in a way of its own, "
            "so what is learned pixel by pixel is blurred before the model sees it.",
            f"Leave `size` and the connection's input_size at {least} or more.",
        )
    ]


def refuse_blunt(classes: int, source_labels: int, kind: ScoreKind, views: int) -> None:
    """Raises BadRequest `too_many_classes` where the answers cannot name so many classes: one label's share
    of itself is always 1, and K hard labels under r views make K^r patterns."""
    if source_labels == 1 and kind in ("probability", "label"):
        raise BadRequest(
            "The source model has one label, so every image gets the same answer.",
            code="too_many_classes",
            hint="Use a model with 2 labels at least, or one that scores its labels independently.",
        )
    if kind != "label" or classes <= source_labels**views:
        return
    needed = ceil(log(classes) / log(source_labels) - 1e-9)
    raise BadRequest(
        f"{source_labels} hard labels under {views} views make {source_labels**views} patterns: too few to "
        f"tell {classes} classes apart.",
        code="too_many_classes",
        param="limits.queries_per_prediction",
        hint=f"Allow {needed} queries per prediction at least."
        if needed <= MOST_VIEWS
        else "Use a model that answers scores.",
    )


def _narrow(classes: int, source_labels: int, kind: ScoreKind, views: int) -> list[dict[str, str]]:
    """Fewer independent numbers than a linear head needs."""
    numbers = source_labels - (kind == "probability")
    if kind == "label" or numbers * views >= classes - 1:
        return []
    needed = ceil((classes - 1) / max(1, numbers))
    return [
        _concern(
            "few_source_labels",
            f"{classes} classes are to be told apart by {numbers * views} independent scores a prediction.",
            f"{needed} queries per prediction would give as many numbers as classes need."
            if needed <= MOST_VIEWS
            else "A source model with more labels would do better.",
        )
    ]


def scouts(labels: np.ndarray[Any, np.dtype[np.intp]], seed: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Training images to ask first: stratified, few."""
    return np.sort(spread(labels, seed)[:SCOUTS])


def constant(scores: Scores) -> bool:
    """Whether all (n, K) answers are the same. A label that is named for some images only says something."""
    return bool(np.array_equal(scores, np.broadcast_to(scores[:1], scores.shape), equal_nan=True))


def refuse_constant(scores: Scores, images: int) -> None:
    """Raises BadRequest `constant_scores` when these (n, K) answers are all the same; the scouts' cost then
    is all that was spent, out of `images`."""
    answered = scores[~np.isnan(scores).all(axis=1)]
    if len(answered) < LEAST_SCOUTS:
        return
    if constant(answered):
        raise BadRequest(
            f"The source model gave the same answer to the first {len(answered)} training images.",
            code="constant_scores",
            hint=f"The other {images - len(answered)} were not asked. Try another model, or check that the "
            "images are what you meant to send.",
        )


def expectation(
    problem: Problem, state: MethodState, plan: Plan, price_micros: int, currency: str
) -> dict[str, Any]:
    """What is known once the probe is paid: the head and the pixels on the validation images, what a program
    may add by queries per prediction, and what learning would still cost."""
    n, head = len(problem.labels["val"]), float(state.metrics["val_accuracy"])
    head_ci95 = metrics.ends(round(head * n), n)
    groups = None if problem.groups is None else problem.groups["train"]
    known = problem.pixels["train"], problem.labels["train"]
    guessed = kernel_mapping(*known, problem.classes, groups, problem.seed).apply(problem.pixels["val"])
    pixels = float((guessed.argmax(axis=1) == problem.labels["val"]).mean())
    pixels_ci95 = metrics.ends(round(pixels * n), n)
    ahead = [
        {
            "queries_per_prediction": r,
            **{name: round(1 - (1 - head) * (1 - share), 4) for name, share in shares.items()},
        }
        for r, shares in REMOVED.items()
        if r <= max(1, problem.queries_per_prediction)
    ]
    left = max(0, plan.planned - plan.probe)
    return {
        "queries": problem.count,
        "head": {"val_accuracy": round(head, 6), "ci95": head_ci95},
        "pixels": {"val_accuracy": round(pixels, 6), "ci95": pixels_ci95},
        "expected": ahead,
        "left": {"queries": left, "cost": Money.of(left * price_micros, currency).model_dump()},
        "sentence": _sentence((head, head_ci95), (pixels, pixels_ci95), ahead[-1]),
    }


Share = tuple[float, list[float]]  # and its 95 % interval


def _sentence(head: Share, pixels: Share, most: Mapping[str, Any]) -> str:
    asked = most["queries_per_prediction"]
    text = (
        f"On the validation images the best head on the plain image's scores is right {_said(head)}, a model "
        f"on your pixels alone {_said(pixels)} (95 % intervals). "
        f"With {asked} {'query' if asked == 1 else 'queries'} a prediction expect "
        f"{most['low']:.0%} to {most['high']:.0%}, most likely {most['likely']:.0%}"
    )
    if pixels[0] > most["high"]:
        return text + ": less than your pixels alone. Stopping here is likely the better choice."
    return text + "."


def _said(share: Share) -> str:
    value, (low, high) = share
    return f"{value:.0%} ({low:.0%} to {high:.0%})"


def told(state: MethodState) -> list[dict[str, str]]:
    """The concerns of a method, from its state."""
    found = list(state.meta.get("warnings", []))
    if state.meta.get("error") == "probes_lost_in_rounding":
        share = state.metrics.get("distinct_fraction", 0.0)
        found.append(
            _concern(
                "probes_lost_in_rounding",
                f"Only {share:.0%} of the probes differ from the image they probe, once pixels are rounded.",
                "Raise `smoothing`, or lower `program.resolution`: the estimate is noise otherwise.",
            )
        )
    if state.meta.get("error") == "probes_not_felt":
        share = state.metrics.get("felt_fraction", 0.0)
        found.append(
            _concern(
                "probes_not_felt",
                f"Only {share:.0%} of the probes changed an answer, though their pixels differ: the service "
                "resizes or re-compresses images, rounds its scores, or answers labels alone.",
                "Raise `smoothing`, lower `program.resolution`, or use race or auto; the test of the "
                "connection with probes says whether the service resizes or re-compresses.",
            )
        )
    return found


def _concern(code: str, detail: str, hint: str) -> dict[str, str]:
    return {"code": code, "detail": detail, "hint": hint}
