"""Free refits: another head on a job's program, from answers that are stored already. Nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Images, Price, Scores, Split
from app.errors import Conflict
from app.gateway.account import Answers
from app.jobs import report
from app.jobs.bench import Answered
from app.jobs.dataset import Dataset
from app.jobs.spec import Money
from app.methods import Problem
from app.methods.choice import Judged, headed
from app.methods.heading import Head, HeadType
from app.reprogramming import metrics
from app.reprogramming import program as programs
from app.reprogramming.program import Program
from app.reprogramming.transform import render_many

LEARNING: tuple[Split, ...] = ("train", "val")
WINDOW = 128  # source images in memory at once


class HeadSpec(BaseModel):
    """The head that is wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Annotated[HeadType, Field(description="best: linear or rbf, by cross-validation.")] = "best"
    labels_per_class: Annotated[
        int | None,
        Field(ge=1, le=500, description="random, frequency: null: 1 for 2 classes, else up to 10."),
    ] = None
    top: Annotated[int, Field(ge=1, le=1000, description="bayesian: highest scores counted.")] = 1


@dataclass(frozen=True)
class Shelf:
    """Where a job's answers lie. `left_out` are the images (split, index) that the provider refused."""

    recall: Callable[[Images], Answers]
    data: Dataset
    price: Price
    left_out: Collection[tuple[str, int]]


def evaluate(
    program: Program, shelf: Shelf, head: Head, seed: int, *, test: bool
) -> tuple[Program, dict[str, Any]]:
    """The same views under `head`, and how right that is: on validation images by a head that has not seen
    them, and with `test` on the test images. What is returned is fitted on training and validation images.

    Raises Conflict `answers_missing` with what the missing answers would cost, Conflict `dataset_changed`,
    and BadRequest `mapping_too_wide`.
    """
    if shelf.data.canonical != program.canonical:
        raise Conflict(
            "The program was learned on images of another size than this data set's.",
            code="dataset_changed",
            hint="Start a job on this data set.",
        )
    wanted: tuple[Split, ...] = (*LEARNING, "test") if test else LEARNING
    kept: dict[Split, NDArray[np.intp]] = {split: _rows(shelf, split) for split in wanted}
    scores: dict[Split, Scores] = {split: _scores(program, shelf, split, kept[split]) for split in wanted}
    _refuse_missing(scores, shelf.price)
    problem = _problem(program, shelf.data, kept, seed)
    nobody = np.zeros(len(problem.labels["train"]), bool)
    found = headed(problem, program.views, scores["train"], scores["val"], nobody, head)
    told = _validation(found)
    if test:
        told["test"] = _test(found.program, shelf.data, kept["test"], scores["test"])
    return found.program, told


def _rows(shelf: Shelf, split: Split) -> NDArray[np.intp]:
    out = [index for of, index in shelf.left_out if of == split]
    return np.setdiff1d(np.arange(len(shelf.data.labels[split])), out)


def _scores(program: Program, shelf: Shelf, split: Split, rows: NDArray[np.intp]) -> Scores:
    """(V, n, K) stored scores; a row of NaN was never paid for."""
    step, parts = max(1, WINDOW // len(program.views)), list[Scores]()
    for start in range(0, len(rows), step):
        images = shelf.data.images[split][rows[start : start + step]]
        known = shelf.recall(render_many(program.views, images))
        shaped = known.scores.reshape(len(program.views), len(images), -1)
        parts.append(Answered(known.labels, shaped).under(program.source_labels))
    return np.concatenate(parts, axis=1)


def _refuse_missing(scores: Mapping[Split, Scores], price: Price) -> None:
    missing = sum(int(np.isnan(rows).all(axis=2).sum()) for rows in scores.values())
    if not missing:
        return
    money = Money.of(missing * price.micros, price.currency)
    raise Conflict(
        f"{missing} of the {sum(rows.shape[0] * rows.shape[1] for rows in scores.values())} answers that "
        f"this head is fitted on were never paid for: {missing} queries, {money.amount} {money.currency}.",
        code="answers_missing",
        hint="A job of method race, views or auto has them all; clone the job with one of these.",
    )


def _problem(program: Program, data: Dataset, kept: Mapping[Split, NDArray[np.intp]], seed: int) -> Problem:
    """The task as heads see it; no query is planned."""
    groups = data.groups
    return Problem(
        images={split: data.images[split][kept[split]] for split in LEARNING},
        labels={split: data.labels[split][kept[split]] for split in LEARNING},
        target_labels=program.target_labels,
        source_labels=program.source_labels,
        score_kind=program.score_kind,
        floor=program.floor,
        size=program.views[0].size,
        seed=seed,
        queries=0,
        queries_per_prediction=len(program.views),
        probe={},
        groups=None if groups is None else {split: groups[split][kept[split]] for split in LEARNING},
        encoder=program.encoder,
        background=program.background,
    )


def _validation(found: Judged) -> dict[str, Any]:
    figures = {"val_accuracy": round(found.accuracy, 6), "val_loss": round(found.loss, 6)}
    return metrics.with_interval(figures, found.validation) | {"validation_images": found.validation}


def _test(program: Program, data: Dataset, rows: NDArray[np.intp], scores: Scores) -> dict[str, Any]:
    images, labels = data.images["test"][rows], data.labels["test"][rows]
    target = programs.score(program, scores, images)
    right = int((target.argmax(axis=1) == labels).sum())
    return {
        "accuracy": round(right / max(1, len(labels)), 6),
        "ci95": metrics.ends(right, len(labels)),
        "images": len(labels),
        **report.describe(target, labels, program.target_labels),
    }
