"""Heads pooled of several: one regression per view and a ridge on all columns; a linear and a kernel head.

Letters as in `heads`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from app.contracts import Labels
from app.reprogramming.heads import (
    EMPHASES,
    LEAST,
    MOST_VARIANCE,
    PENALTIES,
    TEMPERATURES,
    Axes,
    Fit,
    Floats,
    Principal,
    Rows,
    fit_logistic,
    not_aside,
    sharpen,
    softmax,
)
from app.reprogramming.ridge import loo_from_spectrum, one_hot

RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # times the mean eigenvalue of the Gram matrix
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second opinion, where two are pooled
MOST_KEPT = 64  # fits of single views


def fit_views(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None,
    seed: int,
    view: int,
    pixels: int = 0,
    aside: Rows | None = None,
) -> Fit:
    """A linear head on the log-scores of views of many labels each: the mean of two opinions.

    One is the product of what a logistic regression says of each view by itself, and one of the pixel
    features: as if views erred independently, where a regression on thousands of columns at once finds less.
    Each is made with the emphasis on what varies most that its folds ask for. The other is ridge regression
    on all columns, better where classes lie far apart. Both are linear in the columns before the softmax, and
    so is their geometric mean. The labels of rows set `aside` (n,) have no part in any choice, nor in what is
    said of those rows.
    """
    few = features.shape[1] - pixels
    whole = Axes.of(features, view, pixels, MOST_VARIANCE)
    units = None if groups is None else np.unique(groups, return_inverse=True)[1]

    def alone(first: int, last: int) -> Fit:
        part = np.ascontiguousarray(features[:, first:last])

        def fit() -> Fit:
            axes = whole
            if last - first < features.shape[1]:
                axes = Axes.of(part, view, 0, MOST_VARIANCE) if last <= few else Axes.of(part, pixels=pixels)
            return fit_logistic(axes, labels, classes, PENALTIES, groups, seed, aside, EMPHASES)

        return _RECENT.fit((part, labels, units, aside), (classes, seed, last <= few), fit)

    parts = [alone(at, at + view) for at in range(0, few, view)]
    if pixels:
        parts.append(alone(few, features.shape[1]))
    judged = not_aside(labels, aside)
    said = np.mean([np.log(np.maximum(fit.held_out, LEAST)) for fit in parts], axis=0)
    sharpness, _ = sharpen(said[judged], labels[judged])
    ridge = _fit_ridge(whole, labels, classes, groups, aside)
    own, other, held_out = pool(softmax(sharpness * said), ridge.held_out, labels, judged)
    own *= sharpness / len(parts)
    weights = np.concatenate([own * fit.weights / fit.scale[:, None] for fit in parts])
    weights += other * ridge.weights / ridge.scale[:, None]
    bias = own * np.sum([fit.bias - (fit.mean / fit.scale) @ fit.weights for fit in parts], axis=0)
    bias += other * (ridge.bias - (ridge.mean / ridge.scale) @ ridge.weights)
    mean = features.mean(axis=0)
    return Fit(weights, bias + mean @ weights, mean, np.ones(len(mean)), held_out)


def pool(one: Floats, other: Floats, labels: Labels, judged: Rows) -> tuple[float, float, Floats]:
    """Two opinions (n, T) on rows they have not seen: how much the logarithm of each counts in the geometric
    mean of least cross-entropy on the `judged` rows, and that mean, (n, T)."""
    logs = np.log(np.maximum([one, other], LEAST))
    means = {share: (1 - share) * logs[0] + share * logs[1] for share in SHARES}
    found = {share: sharpen(mean[judged], labels[judged], TEMPERATURES) for share, mean in means.items()}
    share = min(SHARES, key=lambda share: found[share][1])
    factor = found[share][0]
    return factor * (1 - share), factor * share, softmax(factor * means[share])


def _fit_ridge(
    columns: Axes, labels: Labels, classes: int, groups: NDArray[Any] | None, aside: Rows | None
) -> Fit:
    """Ridge regression on one-hot targets; its penalty, and the sharpness of the softmax of its values, are
    those of least cross-entropy of the exact leave-one-out values."""
    targets, everyone = one_hot(labels, classes), columns.principal
    if aside is None:
        alpha, sharpness, held_out = _ridge_chosen(everyone, labels, classes, groups)
    else:
        inside = ~aside
        middle = everyone.turned[inside].mean(axis=0)
        some = Principal.of(everyone.turned[inside] - middle)
        apart = None if groups is None else groups[inside]
        alpha, sharpness, known = _ridge_chosen(some, labels[inside], classes, apart)
        weights, bias = _ridge(some, targets[inside], alpha)
        held_out = (everyone.turned - middle) @ some.back(weights) + bias
        held_out[inside] = known
    weights, bias = _ridge(everyone, targets, alpha)
    return columns.head(sharpness * weights, sharpness * bias, softmax(sharpness * held_out))


def _ridge_chosen(
    columns: Principal, labels: Labels, classes: int, groups: NDArray[Any] | None
) -> tuple[float, float, Floats]:
    """Penalty, sharpness, and leave-one-out values (n, T)."""
    values = np.maximum(len(labels) * columns.spread, 1e-30)
    basis = columns.turned / np.sqrt(values)
    found = None
    for alpha in RIDGES:
        held_out = loo_from_spectrum(
            values[None], basis[None], labels, classes, (alpha,), groups
        ).predictions[0]
        sharpness, loss = sharpen(held_out, labels)
        if found is None or loss < found[0]:
            found = loss, alpha, sharpness, held_out
    assert found is not None
    return found[1:]


def _ridge(columns: Principal, targets: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Weights (r, T) on the axes, and bias (T,)."""
    middle = targets.mean(axis=0)
    values = np.maximum(len(targets) * columns.spread, 1e-30)
    penalty = alpha * values.sum() / len(targets)
    return columns.turned.T @ (targets - middle) / (values + penalty)[:, None], middle


class _Recent:
    """The last fits made. A view's is wanted again when more views, or pixel features, stand beside it."""

    def __init__(self) -> None:
        self._fits: OrderedDict[bytes, Fit] = OrderedDict()
        self._lock = Lock()

    def fit(self, arrays: tuple[NDArray[Any] | None, ...], rest: object, fit: Callable[[], Fit]) -> Fit:
        """What `fit` makes of these arrays and the rest."""
        digest = blake3(repr(rest).encode())
        for array in arrays:
            digest.update(b"none" if array is None else repr(array.shape).encode() + array.tobytes())
        key = digest.digest()
        with self._lock:
            if key in self._fits:
                self._fits.move_to_end(key)
                return self._fits[key]
        made = fit()
        with self._lock:
            self._fits[key] = made
            while len(self._fits) > MOST_KEPT:
                self._fits.popitem(last=False)
        return made


_RECENT = _Recent()
