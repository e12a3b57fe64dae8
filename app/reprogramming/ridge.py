"""Closed-form leave-one-out ridge: the criterion that the race of programs turns on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels

Floats = NDArray[np.float64]

ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # times the mean eigenvalue of the Gram matrix: free of scale


@dataclass(frozen=True)
class LeaveOneOut:
    """Of P candidates (or of one, then without the P axis). `predictions` (P, n, T) are held-out values of
    the one-hot targets at the penalty with the least squared error."""

    accuracy: Floats  # (P,)
    loss: Floats  # (P,) mean squared error over images, summed over targets
    predictions: Floats  # (P, n, T)


def one_hot(labels: Labels, classes: int) -> Floats:
    """(n,) -> (n, T)."""
    return np.eye(classes)[labels]


def loo_ridge(
    features: Floats,
    labels: Labels,
    classes: int,
    alphas: Sequence[float] = ALPHAS,
    groups: NDArray[Any] | None = None,
) -> LeaveOneOut:
    """Leave-one-out multi-output ridge with an unpenalised intercept on one-hot targets.

    features (n, F) or (P, n, F), labels (n,). Exact: with H the hat matrix, the held-out residual is
    r_i / (1 - H_ii), or (I - H_gg)^-1 r_g when a whole group is held out. Penalty = alpha * trace(K) / n.
    """
    batch = features[None] if features.ndim == 2 else features
    centred = batch - batch.mean(axis=1, keepdims=True)
    n, width = batch.shape[1:]
    if width < n:  # primal: the eigenvectors of K through those of the smaller F x F matrix
        values, vectors = np.linalg.eigh(centred.transpose(0, 2, 1) @ centred)
        values, vectors = _sound(values, vectors)
        basis = centred @ (vectors / np.sqrt(values)[:, None, :])
        basis *= (values > values[:, -1:] * 1e-12)[:, None, :]
        result = loo_from_spectrum(values, basis, labels, classes, alphas, groups)
    else:
        result = loo_gram(centred @ centred.transpose(0, 2, 1), labels, classes, alphas, groups)
    if features.ndim == 2:
        return LeaveOneOut(result.accuracy[0], result.loss[0], result.predictions[0])
    return result


def loo_gram(
    grams: Floats,
    labels: Labels,
    classes: int,
    alphas: Sequence[float] = ALPHAS,
    groups: NDArray[Any] | None = None,
) -> LeaveOneOut:
    """The same from (P, n, n) Gram matrices of centred features; those of features side by side add up."""
    return loo_from_spectrum(*_sound(*np.linalg.eigh(grams)), labels, classes, alphas, groups)


def _sound(values: Floats, vectors: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues away from zero, so that a constant feature block divides nothing by zero."""
    return np.maximum(values, np.maximum(values[:, -1:] * 1e-13, 1e-30)), vectors


def loo_from_spectrum(
    values: Floats,
    basis: Floats,
    labels: Labels,
    classes: int,
    alphas: Sequence[float],
    groups: NDArray[Any] | None = None,
) -> LeaveOneOut:
    """The same from the spectrum of centred Gram matrices: values (P, r), orthonormal basis (P, n, r)."""
    n = basis.shape[1]
    targets = one_hot(labels, classes)
    centred = targets - targets.mean(axis=0)
    turned = basis.transpose(0, 2, 1) @ centred  # (P, r, T)
    scale = values.sum(axis=1, keepdims=True) / n
    best_loss = np.full(len(basis), np.inf)
    best = np.empty((len(basis), n, classes))
    for alpha in alphas:
        shrink = values / (values + alpha * scale)
        residual = centred - basis @ (shrink[..., None] * turned)
        held_out = _held_out(residual, basis, shrink, groups)
        loss = (held_out**2).sum(axis=2).mean(axis=1)
        better = loss < best_loss
        best_loss = np.where(better, loss, best_loss)
        best[better] = (targets - held_out)[better]
    accuracy = (best.argmax(axis=2) == labels).mean(axis=1)
    return LeaveOneOut(accuracy, best_loss, best)


def _held_out(residual: Floats, basis: Floats, shrink: Floats, groups: NDArray[Any] | None) -> Floats:
    """Residuals (P, n, T) of each row, or group of rows, as if it had not been fitted."""
    n = residual.shape[1]
    leverage = (basis**2 * shrink[:, None, :]).sum(axis=2) + 1.0 / n
    held_out = residual / np.maximum(1.0 - leverage, 1e-9)[..., None]
    if groups is None:
        return held_out
    _, unit, counts = np.unique(groups, return_inverse=True, return_counts=True)
    ordered = np.argsort(unit.ravel(), kind="stable")
    first = np.cumsum(counts) - counts
    for count in np.unique(counts[counts > 1]):  # groups of one size at once
        rows = ordered[first[counts == count][:, None] + np.arange(count)]  # (G, count)
        part = basis[:, rows]
        block = (part * shrink[:, None, None, :]) @ part.swapaxes(2, 3) + 1.0 / n
        held_out[:, rows] = np.linalg.solve(np.eye(count) * (1 + 1e-9) - block, residual[:, rows])
    return held_out
