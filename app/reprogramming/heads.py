"""The numerics of fitted heads: softmax regression and an RBF kernel head, penalties by cross-validation.

Letters: n training images, F feature columns, T target labels. scipy is imported where a fit needs it, so
that serving never loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels
from app.reprogramming.ridge import loo_from_spectrum, one_hot
from app.reprogramming.splits import fold_numbers

Floats = NDArray[np.float64]

PENALTIES = (3e-2, 3e-3, 3e-4)  # of the squared weights, for features of unit variance and a mean loss
FOLDS = 3
KERNEL_WIDTHS = (0.1, 0.3, 1.0)  # gamma * F on standardised columns
KERNEL_ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1)  # times the mean eigenvalue of the Gram matrix


@dataclass(frozen=True)
class Fit:
    """Arrays of a head (see `mapping.LabelMapping`), and what it said of rows it had not seen."""

    weights: Floats
    bias: Floats
    mean: Floats
    scale: Floats
    held_out: Floats  # (n, T) rows sum to 1; for a linear head with a given penalty, the fitted values
    support: Floats | None = None
    gamma: float = 0.0


def softmax(x: Floats) -> Floats:
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def squared_distances(a: Floats, b: Floats) -> Floats:
    """(..., N, F) and (M, F) -> (..., N, M)."""
    squares = (a**2).sum(axis=-1)[..., None] + (b**2).sum(axis=-1) - 2.0 * (a @ b.T)
    return np.maximum(squares, 0.0)


def fit_linear(
    features: Floats,
    labels: Labels,
    classes: int,
    penalties: Sequence[float],
    groups: NDArray[Any] | None,
    seed: int,
) -> Fit:
    """Multinomial logistic regression; with several penalties, the one of least held-out loss.

    Columns are centred and scaled. The problem is solved in the principal axes of the columns, each
    stretched by the root of its share of the Hessian: a rotation changes nothing under a squared penalty,
    and the stretch lets few L-BFGS steps do (a fit of 2,000 x 1,000 columns takes well under a second).
    """
    mean, scale = features.mean(axis=0), column_scale(features)
    z = (features - mean) / scale
    axes, spread = _principal_axes(z)
    turned = z @ axes
    solver = _Solver(turned, spread, one_hot(labels, classes))
    best, held_out = penalties[0], None
    if len(penalties) > 1:
        best, held_out = _choose(solver, labels, penalties, fold_numbers(labels, FOLDS, seed, groups))
    solution = solver.solve(np.ones(len(labels), dtype=bool), best, None)
    if held_out is None:
        held_out = solver.predict(solution)
    weights, bias = solution
    return Fit(axes @ weights, bias, mean, scale, held_out)


def column_scale(features: Floats) -> Floats:
    """(F,) standard deviations, kept from zero."""
    deviations = features.std(axis=0)
    usual = float(np.sqrt((deviations**2).mean())) or 1.0
    return np.maximum(deviations, 1e-3 * usual)


def _choose(
    solver: _Solver, labels: Labels, penalties: Sequence[float], folds: Labels
) -> tuple[float, Floats]:
    """The penalty of least held-out cross-entropy, and its held-out predictions. Each fold walks the
    penalties from strong to weak, starting where the last one ended."""
    ordered = sorted(penalties, reverse=True)
    held_out = np.empty((len(ordered), *solver.targets.shape))
    for fold in range(FOLDS):
        inside = folds != fold
        solution = None
        for i, penalty in enumerate(ordered):
            solution = solver.solve(inside, penalty, solution)
            held_out[i, ~inside] = solver.predict(solution)[~inside]
    right = held_out[:, np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(right, 1e-6)).mean(axis=1)
    best = int(np.argmin(losses))
    return ordered[best], held_out[best]


def _principal_axes(z: Floats) -> tuple[Floats, Floats]:
    """(F, r) orthonormal axes that hold all the variance of z (n, F), and their variances (r,)."""
    n, width = z.shape
    if width <= n:
        values, axes = np.linalg.eigh(z.T @ z)
        return axes, np.maximum(values, 0.0) / n
    values, vectors = np.linalg.eigh(z @ z.T)
    kept = values > values[-1] * 1e-12
    return z.T @ (vectors[:, kept] / np.sqrt(values[kept])), values[kept] / n


class _Solver:
    """Softmax regression on rotated columns; holds the data, no state between solves."""

    def __init__(self, columns: Floats, variances: Floats, targets: Floats) -> None:
        self.columns, self.variances, self.targets = columns, variances, targets

    def solve(
        self, rows: NDArray[np.bool_], penalty: float, start: tuple[Floats, Floats] | None
    ) -> tuple[Floats, Floats]:
        """Weights (r, T) and bias (T,) that minimise mean cross-entropy + penalty / 2 |weights|^2."""
        from scipy.optimize import minimize

        targets = self.targets[rows]
        n, classes = targets.shape
        curvature = self.variances * (classes - 1) / classes**2 + penalty
        stretch = 1.0 / np.sqrt(curvature)
        columns = np.concatenate([self.columns[rows] * stretch, np.ones((n, 1)) * np.sqrt(classes)], axis=1)
        ridge = np.append(penalty / curvature, 0.0)[:, None]

        def objective(flat: Floats) -> tuple[float, Floats]:
            u = flat.reshape(-1, classes)
            scores = columns @ u
            scores -= scores.max(axis=1, keepdims=True)
            powers = np.exp(scores)
            total = powers.sum(axis=1, keepdims=True)
            loss = (np.log(total[:, 0]) - (scores * targets).sum(axis=1)).mean()
            slope = columns.T @ (powers / total - targets) / n + ridge * u
            return float(loss + 0.5 * (ridge * u**2).sum()), slope.ravel()

        u = np.zeros((columns.shape[1], classes))
        if start is not None:
            u[:-1], u[-1] = start[0] / stretch[:, None], start[1] / np.sqrt(classes)
        options = {"maxiter": 60, "gtol": 1e-4, "ftol": 1e-7}
        u = minimize(objective, u.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(u.shape)
        return stretch[:, None] * u[:-1], np.sqrt(classes) * u[-1]

    def predict(self, solution: tuple[Floats, Floats]) -> Floats:
        return softmax(self.columns @ solution[0] + solution[1])


def fit_kernel(features: Floats, labels: Labels, classes: int, groups: NDArray[Any] | None) -> Fit:
    """RBF least-squares head (kernel ridge on one-hot targets), width and penalty by exact leave-one-out.

    Its held-out values also set the sharpness of the softmax that turns values into probabilities.
    """
    mean, scale = features.mean(axis=0), column_scale(features)
    z = (features - mean) / scale
    targets = one_hot(labels, classes)
    distances = squared_distances(z, z)
    best: tuple[float, Fit] | None = None
    for width in KERNEL_WIDTHS:
        gamma = width / z.shape[1]
        gram = np.exp(-gamma * distances)
        middle = gram.mean(axis=0)
        values, basis = np.linalg.eigh(gram - middle - middle[:, None] + middle.mean())
        values = np.maximum(values, values[-1] * 1e-13)
        for alpha in KERNEL_ALPHAS:
            out = loo_from_spectrum(values[None], basis[None], labels, classes, (alpha,), groups)
            sharpness, loss = _sharpen(out.predictions[0], labels)
            if best is not None and loss >= best[0]:
                continue
            ridge = alpha * values.sum() / len(z)
            dual = basis @ ((basis.T @ (targets - targets.mean(axis=0))) / (values + ridge)[:, None])
            dual -= dual.mean(axis=0)
            bias = targets.mean(axis=0) - middle @ dual
            held_out = softmax(sharpness * out.predictions[0])
            best = loss, Fit(sharpness * dual, sharpness * bias, mean, scale, held_out, z, gamma)
    assert best is not None
    return best[1]


def _sharpen(values: Floats, labels: Labels) -> tuple[float, float]:
    """The factor before the softmax of least cross-entropy, and that loss."""
    factors = np.geomspace(0.5, 64.0, 29)
    rows = np.arange(len(labels))
    losses = [-np.log(np.maximum(softmax(f * values)[rows, labels], 1e-12)).mean() for f in factors]
    best = int(np.argmin(losses))
    return float(factors[best]), float(losses[best])
