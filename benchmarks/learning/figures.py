"""From finished cells to figures: means over seeds, intervals, paired differences, goals met or missed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.reprogramming.metrics import Z95
from benchmarks.learning.cell import unpacked

Line = Mapping[str, Any]  # one finished cell

RIVALS = {
    "majority": "majority class",
    "mapping_only": "mapping only",
    "linear_head": "linear head",
    "raw_pixels": "raw pixels",
    "raw_data": "own data, no pictures",
}


@dataclass(frozen=True)
class Figure:
    """One row of the report: a method on a pair at a budget, over seeds."""

    task: str
    source: str
    method: str
    views: int  # queries per prediction allowed; 0 for a rival
    queries: int
    seeds: int
    accuracy: float
    low: float
    high: float
    paid: int  # learning queries, mean over seeds
    usd: float
    asks: float  # queries per prediction of the finished program, mean
    images: tuple[int, int, int]  # train, validation, test
    own: float | None = None  # of the best program a descending method made by itself
    over_head: tuple[float, float, float] | None = None  # difference to the linear head, low, high
    over_pixels: tuple[float, float, float] | None = None

    @property
    def key(self) -> str:
        return f"{self.task}/{self.source}/{self.method}/r{self.views}/{self.queries}"


def interval(rights: Sequence[NDArray[np.float64]], apart: bool) -> tuple[float, float, float]:
    """Mean over seeds of the mean of each, and 95 % limits.

    Seeds share test images, so the images count once: variance over the images of one seed, plus what the
    seeds scatter by, over their number. `apart`: test sets (folds) without a common image count in full.
    """
    means = np.array([right.mean() for right in rights])
    images = sum(map(len, rights)) if apart else min(map(len, rights))
    of_images = float(np.mean([right.var() for right in rights])) / images
    of_seeds = float(means.var(ddof=1)) / len(means) if len(means) > 1 and not apart else 0.0
    half = Z95 * sqrt(of_images + of_seeds)
    return float(means.mean()), float(means.mean() - half), float(means.mean() + half)


def figures(lines: Iterable[Line]) -> list[Figure]:
    """All rows, rivals included, in the order in which they first appear."""
    groups: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
    rivals: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        if "rivals" in line:
            rivals[_images_of(line)] = line
        if "rivals" in line or "accuracy" in line:
            groups[tuple(line[k] for k in ("task", "source", "method", "views", "queries"))].append(line)
    out: list[Figure] = []
    for group in groups.values():
        out += _of_rivals(group) if "rivals" in group[0] else [_of_method(group, rivals)]
    return out


def _images_of(line: Line) -> tuple[Any, ...]:
    return line["task"], line["source"], line["seed"], line["images"]["train"], line["images"]["val"]


def _bits(line: Line, of: Mapping[str, Any]) -> NDArray[np.float64]:
    return unpacked(of["right"], line["images"]["test"]).astype(np.float64)


def _of_method(group: Sequence[Line], rivals: Mapping[tuple[Any, ...], Line]) -> Figure:
    first, apart = group[0], group[0]["task"] == "abide"
    mean, low, high = interval([_bits(line, line) for line in group], apart)
    owns = [line["own"]["accuracy"] for line in group if "own" in line]
    beside: dict[str, tuple[float, float, float] | None] = {}
    for rival in ("linear_head", "raw_pixels"):
        pairs = [(line, rivals[at]) for line in group if (at := _images_of(line)) in rivals]
        gains = [_bits(line, line) - _bits(other, other["rivals"][rival]) for line, other in pairs]
        beside[rival] = interval(gains, apart) if len(gains) == len(group) else None
    return Figure(
        *(first[k] for k in ("task", "source", "method", "views", "queries")),
        len(group), mean, max(0.0, low), min(1.0, high),
        round(np.mean([line["paid"] for line in group])),
        float(np.mean([line["micros"] for line in group])) / 1e6,
        float(np.mean([line["asks"] for line in group])),
        tuple(first["images"][split] for split in ("train", "val", "test")),
        float(np.mean(owns)) if len(owns) == len(group) else None,
        beside["linear_head"], beside["raw_pixels"],
    )  # fmt: skip


def _of_rivals(group: Sequence[Line]) -> list[Figure]:
    first, out = group[0], list[Figure]()
    for name in first["rivals"]:
        found = [line["rivals"][name] for line in group]
        rights = [_bits(line, of) for line, of in zip(group, found, strict=True)]
        mean, low, high = interval(rights, first["task"] == "abide")
        paid = round(np.mean([of["paid"] for of in found]))
        images = tuple(first["images"][split] for split in ("train", "val", "test"))
        of = first["task"], first["source"], name, 0, first["queries"], len(group)
        usd, low, high = float(np.mean([of["micros"] for of in found])) / 1e6, max(0.0, low), min(1.0, high)
        out.append(Figure(*of, mean, low, high, paid, usd, float(paid > 0), images))
    return out
