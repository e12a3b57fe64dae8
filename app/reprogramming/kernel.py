"""An RBF least-squares head: kernel ridge regression on one-hot targets, all choices by leave-one-out.

Letters as in `heads`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels
from app.reprogramming.heads import (
    Fit,
    Floats,
    Principal,
    Rows,
    column_scale,
    not_aside,
    sharpen,
    softmax,
    squared_distances,
    whitenings,
)
from app.reprogramming.ridge import loo_from_spectrum, one_hot

WIDTHS = (0.1, 0.3, 1.0)  # gamma * F on standardised columns
SAMPLE = 1000
ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1)  # times the mean eigenvalue of the Gram matrix


def fit_kernel(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None,
    seed: int,
    pixels: int = 0,
    aside: Rows | None = None,
) -> Fit:
    """RBF least-squares head; width, penalty and whitening by exact leave-one-out. Scores of few labels lean
    on each other: distances are measured on their axes, the short ones stretched, where that errs less.

    Its held-out values also set the sharpness of the softmax that turns values into probabilities. Of many
    rows, a sample chooses the width. The last `pixels` columns, if any, weigh as much in a distance as all
    others together: otherwise hundreds of pixels would drown a few scores. The labels of rows set `aside`
    (n,) have no part in any choice, nor in what is said of those rows.
    """
    mean, scale = features.mean(axis=0), column_scale(features, pixels)
    if pixels:
        width = features.shape[1]
        scale = scale * np.sqrt(2.0 * np.repeat([width - pixels, pixels], [width - pixels, pixels]) / width)
    z = (features - mean) / scale
    inside = not_aside(labels, aside)
    known = labels[inside], classes, None if groups is None else groups[inside], seed
    turns = [_turn(z, pixels, power) for power in whitenings(features, pixels)]
    tried = [(turn, _chosen((z if turn is None else z @ turn)[inside], *known)) for turn in turns]
    turn, best = min(tried, key=lambda one: one[1].loss)
    z = z if turn is None else z @ turn
    held_out = np.empty((len(z), classes))
    held_out[inside] = best.held_out
    if aside is not None:
        held_out[aside] = softmax(best.values(z[aside], z[inside]))
        best = _fitted(best.width, z, labels, classes, groups, (best.alpha,))
    return Fit(best.dual, best.bias, mean, scale, held_out, z, best.width / z.shape[1], turn)


def _turn(z: Floats, pixels: int, power: float) -> Floats | None:
    """(F, F) that whitens the score columns of z (n, F), their total variance and all pixel columns kept."""
    few = z.shape[1] - pixels
    whitened = Principal.of(z[:, :few]).emphasised(power)
    if not power or not whitened.width:
        return None
    turn = np.zeros((z.shape[1], whitened.width + pixels))
    turn[:few, : whitened.width] = whitened.back(np.eye(whitened.width))
    turn[few:, whitened.width :] = np.eye(pixels)
    turn[:few] *= np.sqrt(z[:, :few].var(axis=0).sum() / max(whitened.spread.sum(), 1e-30))
    return turn


class _Kernel(NamedTuple):
    """One width and penalty on given rows; dual and bias as sharp as held-out values want it."""

    loss: float
    width: float
    alpha: float
    dual: Floats  # (n, T)
    bias: Floats  # (T,)
    held_out: Floats  # (n, T) leave-one-out

    def values(self, z: Floats, support: Floats) -> Floats:
        """Before the softmax, of rows z, where `support` are the rows of the fit."""
        return np.exp(-self.width / z.shape[1] * squared_distances(z, support)) @ self.dual + self.bias


def _chosen(z: Floats, labels: Labels, classes: int, groups: NDArray[Any] | None, seed: int) -> _Kernel:
    widths: Sequence[float] = WIDTHS
    if len(z) > SAMPLE:
        rows = np.random.default_rng([seed, len(z)]).permutation(len(z))[:SAMPLE]
        some = None if groups is None else groups[rows]
        widths = (min(widths, key=lambda w: _fitted(w, z[rows], labels[rows], classes, some).loss),)
    return min((_fitted(w, z, labels, classes, groups) for w in widths), key=lambda fit: fit.loss)


def _fitted(
    width: float,
    z: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None,
    alphas: Sequence[float] = ALPHAS,
) -> _Kernel:
    targets = one_hot(labels, classes)
    gram = np.exp(-width / z.shape[1] * squared_distances(z, z))
    middle = gram.mean(axis=0)
    values, basis = np.linalg.eigh(gram - middle - middle[:, None] + middle.mean())
    values = np.maximum(values, max(values[-1] * 1e-13, 1e-30))
    best_loss, best_alpha, best_sharpness, best_values = np.inf, alphas[0], 1.0, targets
    for alpha in alphas:
        held_out = loo_from_spectrum(
            values[None], basis[None], labels, classes, (alpha,), groups
        ).predictions[0]
        sharpness, loss = sharpen(held_out, labels)
        if loss < best_loss:
            best_loss, best_alpha, best_sharpness, best_values = loss, alpha, sharpness, held_out
    ridge = best_alpha * values.sum() / len(z)
    dual = basis @ ((basis.T @ (targets - targets.mean(axis=0))) / (values + ridge)[:, None])
    dual -= dual.mean(axis=0)  # the kernel is centred, the serving one is not
    bias = targets.mean(axis=0) - middle @ dual
    held_out = softmax(best_sharpness * best_values)
    return _Kernel(best_loss, width, best_alpha, best_sharpness * dual, best_sharpness * bias, held_out)
