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
    """(N,) the fold, 0 .. folds - 1, that each row is held out in; stratified, groups together."""
    return _assign(labels, np.full(folds, 1.0 / folds), seed, groups)


def _assign(labels: Labels, fractions: NDArray[np.float64], seed: int, groups: NDArray[Any] | None) -> Labels:
    """Units (rows or groups) in random order, each to the part that lacks most of the unit's classes."""
    rng = np.random.default_rng([seed, len(labels), len(fractions)])
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].ravel()
    classes = int(labels.max()) + 1
    content = np.zeros((int(unit.max()) + 1, classes))
    np.add.at(content, (unit, labels), 1.0)
    wanted = fractions[:, None] * content.sum(axis=0)
    have = np.zeros_like(wanted)
    part_of = np.empty(len(content), dtype=np.intp)
    order = rng.permutation(len(content))
    order = order[np.argsort(-content[order].sum(axis=1), kind="stable")]  # big groups first
    tie = rng.permutation(len(fractions)) * 1e-9
    for u in order:
        lack = ((wanted - have) * content[u]).sum(axis=1)
        empty = ((have == 0) & (content[u] > 0) & (wanted > 0)).any(axis=1)  # no part without a class
        part = int(np.argmax(lack + 1e6 * empty * (wanted.sum(axis=1) + 1) / (wanted.sum() + 1) + tie))
        part_of[u] = part
        have[part] += content[u]
    return part_of[unit]
