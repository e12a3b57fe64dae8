"""The target tasks: labelled images, what belongs together, and who is learned from and who is tested on.

Data that may not be bundled is read from the folder REPROG_BENCH_DATA (examples/README.md describes it); a
task whose data is not there raises MissingData and is named in the report.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images, Labels, Split
from app.jobs import samples
from app.reprogramming import encoder
from app.reprogramming.picture import decode
from app.reprogramming.splits import fold_numbers, stratified_split
from examples.prepare import ABIDE, BENCH_DATA, HAM10000, LESIONS, MELANOMA_OR_NEVUS, autism, lesions

Rows = NDArray[np.intp]

VALIDATION = 0.2  # of the learning images
MOST_PER_CLASS = 240  # HAM10000, 7 classes: two of them have fewer images
FOLDS = 10  # ABIDE
NO_IMAGES = np.zeros((0, 1, 1, 3), np.uint8)
MESSIDOR, ECG_TRAIN, ECG_TEST = "messidor_features.arff", "ECG200_TRAIN.txt", "ECG200_TEST.txt"


class MissingData(Exception):
    """The data of a task is not at hand."""


@dataclass(frozen=True)
class Task:
    """`parts(seed)` are the rows that may be learned from, and the test rows."""

    images: Images  # of records (`kind`): empty, they are drawn by an encoder of the training rows
    labels: Labels
    classes: tuple[str, ...]
    parts: Callable[[int], tuple[Rows, Rows]]
    learn: int  # images learned from, validation included, when the money allows
    groups: NDArray[Any] | None = None
    raw: NDArray[np.float64] | None = None  # (n, F) what the images are made of, for models without an API
    kind: Literal["table", "series"] | None = None

    def rows(self, seed: int, queries: int) -> dict[Split, Rows]:
        """Train, validation and test rows. With few queries, half as many images as queries: learning needs
        more than one pass."""
        pool, test = self.parts(seed)
        pool = self._part(pool, min(self.learn, queries // 2) / len(pool), seed)[0]
        val, train = self._part(pool, VALIDATION, seed)
        return {"train": train, "val": val, "test": test}

    def pictures(self, train: Rows) -> Images:
        """All images, (n, h, w, 3); records as a job draws them."""
        if self.kind is None or self.raw is None:
            return self.images
        records: list[list[float]] = self.raw.tolist()
        names = [f"feature {i}" for i in range(self.raw.shape[1])]
        drawn = encoder.fit(self.kind, [records[i] for i in train], {len(names)}, names, [True] * len(names))
        return np.stack([drawn.image(record) for record in records])

    def _part(self, rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
        if share >= 1:
            return rows, rows[:0]
        groups = None if self.groups is None else self.groups[rows]
        first, second = stratified_split(self.labels[rows], [share, 1 - share], seed, groups)
        return rows[first], rows[second]


def digits() -> Task:
    """Scanned digits 8 x 8. No image that is learned from under one seed is tested on under another."""
    data = samples.digits()
    halves = np.split(np.random.default_rng(12345).permutation(len(data.labels)), [900])

    def parts(seed: int) -> tuple[Rows, Rows]:
        return halves[0], np.sort(np.random.default_rng([seed, 2]).permutation(halves[1])[:300])

    return Task(data.images, data.labels, data.classes, parts, 500)


def squares() -> Task:
    """How many white squares, 1 to 10."""
    data = samples.squares(800, seed=4)
    return Task(data.images, data.labels, data.classes, _shares(data.labels, 300), 500)


def melanoma() -> Task:
    """Melanoma or nevus, photographs of one lesion together."""
    images, labels, classes, lesion = _lesions(tuple(MELANOMA_OR_NEVUS.items()))
    return Task(images, labels, classes, _shares(labels, 600, lesion), 800, lesion)


def ham7() -> Task:
    """All seven diagnoses, at most 240 images of each."""
    images, labels, classes, lesion = _lesions(tuple(LESIONS.items()))
    order = np.random.default_rng(7).permutation(len(labels))
    kept = np.sort(np.concatenate([order[labels[order] == j][:MOST_PER_CLASS] for j in range(len(classes))]))
    lesion = lesion[kept]
    return Task(images[kept], labels[kept], classes, _shares(labels[kept], 300, lesion), 500, lesion)


def abide() -> Task:
    """Autism or control from correlations of brain regions, as a picture of the matrix. A seed is a fold."""
    with tempfile.TemporaryDirectory() as folder:
        _need(ABIDE)
        autism(target := Path(folder) / "abide.npz")
        with np.load(target, allow_pickle=False) as data:
            grey, names = data["images"], data["labels"]
    classes, labels = np.unique(names, return_inverse=True)
    upper = np.triu_indices(grey.shape[1], 1)
    folds = fold_numbers(labels, FOLDS, 0)

    def parts(seed: int) -> tuple[Rows, Rows]:
        return np.flatnonzero(folds != seed % FOLDS), np.flatnonzero(folds == seed % FOLDS)

    raw = grey[:, upper[0], upper[1]] / 127.5 - 1
    return Task(_rgb(grey), labels, tuple(classes.tolist()), parts, len(labels), raw=raw)


def messidor() -> Task:
    """Signs of diabetic retinopathy or none, from 19 features of a picture of the eye."""
    lines = _need(MESSIDOR).read_text().partition("@data")[2].split()
    values = np.array([line.split(",") for line in lines], np.float64)
    raw, labels = values[:, :-1], values[:, -1].astype(np.intp)
    return Task(NO_IMAGES, labels, ("none", "signs"), _shares(labels, 300), 500, raw=raw, kind="table")


def ecg200() -> Task:
    """Normal heartbeat or ischaemia. The published split: 100 to learn from, 100 to test on."""
    values = np.concatenate([np.loadtxt(_need(ECG_TRAIN)), np.loadtxt(_need(ECG_TEST))])
    labels, raw = (values[:, 0] > 0).astype(np.intp), values[:, 1:]
    return Task(
        NO_IMAGES, labels, ("ischaemia", "normal"), lambda _: (np.arange(100), np.arange(100, 200)), 100,
        raw=raw, kind="series",
    )  # fmt: skip


TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits,
    "squares": squares,
    "melanoma": melanoma,
    "ham7": ham7,
    "abide": abide,
    "messidor": messidor,
    "ecg200": ecg200,
}


@cache
def load(name: str) -> Task:
    """Raises MissingData."""
    return TASKS[name]()


def _shares(
    labels: Labels, test: int, groups: NDArray[Any] | None = None
) -> Callable[[int], tuple[Rows, Rows]]:
    """About `test` images to test on, another draw for each seed."""

    def parts(seed: int) -> tuple[Rows, Rows]:
        share = test / len(labels)
        tested, learned = stratified_split(labels, [share, 1 - share], 1000 + seed, groups)
        return learned, tested

    return parts


@cache
def _lesions(names: tuple[tuple[str, str], ...]) -> tuple[Images, Labels, tuple[str, ...], NDArray[Any]]:
    _need(HAM10000)
    with tempfile.TemporaryDirectory() as folder:
        lesions(target := Path(folder) / "upload.zip", dict(names))
        with zipfile.ZipFile(target) as archive:
            rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
            images = np.stack([decode(archive.read(row["path"])) for row in rows])
    classes, labels = np.unique([row["label"] for row in rows], return_inverse=True)
    lesion = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    return images, labels, tuple(classes.tolist()), lesion


def _need(name: str) -> Path:
    folder = os.environ.get(BENCH_DATA)
    if not folder:
        raise MissingData(f"{BENCH_DATA} is not set; {name} is looked for in the folder it names")
    path = Path(folder) / name
    if not path.is_file():
        raise MissingData(f"{name} is not in the folder {BENCH_DATA} names")
    return path


def _rgb(grey: Images) -> Images:
    return np.repeat(grey[..., None], 3, axis=3)
