"""Stratified, grouped and seeded ways to part a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels


def stratified_split(
    labels: Labels, fractions: Sequence[float], seed: int, groups: NDArray[Any] | None = None
) -> tuple[NDArray[np.intp], ...]:
    """Sorted row indices of each part; every class is spread by the fractions (which sum to 1).

    Rows of one group (a patient, a lesion) stay in one part. Without groups a class with at least as many
    rows as there are parts is in every part.
    """
    parts = _assign(labels, np.asarray(fractions, dtype=np.float64), seed, groups)
    return tuple(np.flatnonzero(parts == p) for p in range(len(fractions)))


def fold_numbers(labels: Labels, folds: int, seed: int, groups: NDArray[Any] | None = None) -> Labels:
    """(N,) the fold, 0 .. folds - 1, that each row is held out in; stratified, groups together. Where
    all rows would be held out at once (one group has them all), they take turns."""
    parts = _assign(labels, np.full(folds, 1.0 / folds), seed, groups)
    return parts if np.ptp(parts) else np.arange(len(labels)) % folds


def _assign(labels: Labels, fractions: NDArray[np.float64], seed: int, groups: NDArray[Any] | None) -> Labels:
    """Units (rows or groups) in random order, each to the part that lacks most of the unit's classes."""
    rng = np.random.default_rng([seed, len(labels), len(fractions)])
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    classes = int(labels.max()) + 1
    content = np.zeros((int(unit.max()) + 1, classes))
    np.add.at(content, (unit, labels), 1.0)
    wanted = fractions[:, None] * content.sum(axis=0)
    order = rng.permutation(len(content))
    order = order[np.argsort(-content[order].sum(axis=1), kind="stable")]  # big groups first
    tie = rng.permutation(len(fractions)) * 1e-9
    first = 1e6 * (wanted.sum(axis=1) + 1) / (wanted.sum() + 1)  # no part without a class
    parts = list(
        zip(wanted.tolist(), np.zeros_like(wanted).tolist(), first.tolist(), tie.tolist(), strict=True)
    )

    def merit(part: tuple[list[float], list[float], float, float], rows: list[tuple[int, float]]) -> float:
        want, have, bonus, chance = part
        lack = sum((want[c] - have[c]) * n for c, n in rows)
        return lack + (bonus if any(have[c] == 0 < want[c] for c, _ in rows) else 0.0) + chance

    part_of = np.empty(len(content), dtype=np.intp)
    for u in order.tolist():  # a few plain numbers: arrays would cost more than they save
        rows = [(c, n) for c, n in enumerate(content[u].tolist()) if n]
        merits = [merit(part, rows) for part in parts]
        part_of[u] = best = merits.index(max(merits))
        for c, n in rows:
            parts[best][1][c] += n
    return part_of[unit]
