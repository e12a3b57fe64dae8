"""The numerics of fitted heads: softmax regression and an RBF kernel head, penalties by cross-validation.

Letters: n training images, F feature columns, T target labels. scipy is imported where a fit needs it, so
that serving never loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels
from app.reprogramming.ridge import loo_from_spectrum, one_hot
from app.reprogramming.splits import fold_numbers

Floats = NDArray[np.float64]
Solution: TypeAlias = tuple[Floats, Floats]  # weights (r, T) on principal axes, bias (T,)

#: Of the squared weights, for features of unit variance and a mean loss.
PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
FOLDS = 3
STEPS = 60  # of L-BFGS, at most; a fit inside cross-validation is stopped sooner
FOLD_STEPS = 15
MANY_LABELS = 20  # from here on the log-scores of a view are centred, image by image
#: Of many labels' scores: the axes beyond cost a third of the time and tell nothing (measured).
MOST_VARIANCE = 0.999
TEMPERATURES = np.geomspace(0.4, 2.5, 25)  # their inverses, before the softmax of a linear head
RIDGES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)  # times the mean eigenvalue of the Gram matrix
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second opinion, where two are pooled
KERNEL_WIDTHS = (0.1, 0.3, 1.0)  # gamma * F on standardised columns
KERNEL_SAMPLE = 1000
SHARPNESS = np.geomspace(0.5, 64.0, 29)  # before the softmax of least-squares values, or of many views' mean
LEAST = 1e-12  # probability, before a logarithm
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
    pixels: int = 0,
    view: int = 0,
) -> Fit:
    """Multinomial logistic regression; with several penalties, the one of least held-out loss.

    Columns are centred and scaled; the last `pixels` of them are pixel features. With `view`, so many columns
    at a time are the log-scores of one view: what they have in common says how flat a row of many scores is,
    not what it shows, and the head reads their differences alone. The problem is solved in the principal axes
    of the columns, each stretched by the root of its share of the Hessian: a rotation changes nothing under a
    squared penalty, and the stretch lets few L-BFGS steps do (a fit of 2,000 x 1,000 columns takes well under
    a second).
    """
    return _fit_logistic(_Axes.of(features, view, pixels), labels, classes, penalties, groups, seed)


def fit_views(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None,
    seed: int,
    view: int,
    pixels: int = 0,
) -> Fit:
    """A linear head on the log-scores of views of many labels each: the mean of two opinions.

    One is the product of what a logistic regression says of each view by itself, and one of the pixel
    features: as if views erred independently, where a regression on thousands of columns at once finds less.
    The other is ridge regression on all columns, better where classes lie far apart. Both are linear in the
    columns before the softmax, and so is their geometric mean.
    """
    few = features.shape[1] - pixels
    whole = _Axes.of(features, view, pixels, MOST_VARIANCE)
    ridge = _fit_ridge(whole, labels, classes, groups)
    parts = [whole]
    if few > view or pixels:
        starts = range(0, few, view)
        parts = [_Axes.of(features[:, at : at + view], view, 0, MOST_VARIANCE) for at in starts]
    if pixels:
        parts.append(_Axes.of(features[:, few:], pixels=pixels))
    alone = [_fit_logistic(part, labels, classes, PENALTIES, groups, seed) for part in parts]
    said = np.mean([np.log(np.maximum(fit.held_out, LEAST)) for fit in alone], axis=0)
    sharpness, _ = _sharpen(said, labels)
    own, other, held_out = pool(softmax(sharpness * said), ridge.held_out, labels)
    own *= sharpness / len(alone)
    weights = np.concatenate([own * fit.weights / fit.scale[:, None] for fit in alone])
    weights += other * ridge.weights / ridge.scale[:, None]
    bias = own * np.sum([fit.bias - (fit.mean / fit.scale) @ fit.weights for fit in alone], axis=0)
    bias += other * (ridge.bias - (ridge.mean / ridge.scale) @ ridge.weights)
    mean = features.mean(axis=0)
    return Fit(weights, bias + mean @ weights, mean, np.ones(len(mean)), held_out)


def pool(one: Floats, other: Floats, labels: Labels) -> tuple[float, float, Floats]:
    """Two opinions (n, T) on rows they have not seen: how much the logarithm of each counts in the geometric
    mean of least cross-entropy, and that mean, (n, T)."""
    logs = np.log(np.maximum([one, other], LEAST))
    means = {share: (1 - share) * logs[0] + share * logs[1] for share in SHARES}
    found = {share: _sharpen(mean, labels, TEMPERATURES) for share, mean in means.items()}
    share = min(SHARES, key=lambda share: found[share][1])
    factor = found[share][0]
    return factor * (1 - share), factor * share, softmax(factor * means[share])


def row_centred(columns: Floats, view: int, pixels: int = 0) -> Floats:
    """(n, F) without the mean of each `view` columns, row by row; the last `pixels` stay. view 0: all do."""
    if not view:
        return columns
    out = columns.copy()
    blocks = out[:, : columns.shape[1] - pixels].reshape(len(out), -1, view)
    out[:, : columns.shape[1] - pixels] = (blocks - blocks.mean(axis=2, keepdims=True)).reshape(len(out), -1)
    return out


def column_scale(features: Floats, pixels: int = 0) -> Floats:
    """(F,) standard deviations, kept from zero; further for the last `pixels` columns, where a border that
    never changed in training may change later."""
    few = features.shape[1] - pixels
    return np.concatenate([_kept_from_zero(features[:, :few], 1e-3), _kept_from_zero(features[:, few:], 0.1)])


def _kept_from_zero(features: Floats, least: float) -> Floats:
    deviations = features.std(axis=0)
    if not len(deviations):
        return deviations
    usual = float(np.sqrt((deviations**2).mean())) or 1.0
    return np.maximum(deviations, least * usual)


@dataclass(frozen=True)
class _Axes:
    """Feature columns (n, F), centred and scaled, and turned into their principal axes."""

    features: Floats
    view: int
    pixels: int
    mean: Floats  # (F,) of the columns as a head reads them, see `row_centred`
    scale: Floats  # (F,)
    axes: Floats  # (F, r) orthonormal
    spread: Floats  # (r,) variances
    turned: Floats  # (n, r)

    @staticmethod
    def of(features: Floats, view: int = 0, pixels: int = 0, share: float = 1.0) -> _Axes:
        """The axes that hold `share` of the variance."""
        read = row_centred(features, view, pixels)
        mean, scale = read.mean(axis=0), column_scale(read, pixels)
        z = (read - mean) / scale
        axes, spread = _principal_axes(z)
        if share < 1:
            falling = np.argsort(-spread)
            beyond = np.searchsorted(np.cumsum(spread[falling]), share * spread.sum()) + 1
            axes, spread = axes[:, falling[:beyond]], spread[falling[:beyond]]
        return _Axes(features, view, pixels, mean, scale, axes, spread, z @ axes)

    def head(self, weights: Floats, bias: Floats, held_out: Floats) -> Fit:
        """Of weights (r, T) on the axes."""
        weights = self.axes @ weights
        if not self.view:
            return Fit(weights, bias, self.mean, self.scale, held_out)
        # the same head on rows as they come
        weights = row_centred((weights / self.scale[:, None]).T, self.view, self.pixels).T
        return Fit(weights, bias, self.features.mean(axis=0), np.ones_like(self.scale), held_out)


def _fit_logistic(
    columns: _Axes,
    labels: Labels,
    classes: int,
    penalties: Sequence[float],
    groups: NDArray[Any] | None,
    seed: int,
) -> Fit:
    solver = _Solver(columns.turned, columns.spread, one_hot(labels, classes))
    best, start, held_out, sharpness = penalties[0], None, None, 1.0
    if len(penalties) > 1:
        folds = fold_numbers(labels, FOLDS, seed, groups)
        best, start, held_out, sharpness = _choose(solver, labels, penalties, folds)
    solution = solver.solve(np.ones(len(labels), dtype=bool), best, start, STEPS)
    if held_out is None:
        held_out = solver.predict(solution)
    return columns.head(sharpness * solution[0], sharpness * solution[1], held_out)


def _fit_ridge(columns: _Axes, labels: Labels, classes: int, groups: NDArray[Any] | None) -> Fit:
    """Ridge regression on one-hot targets; its penalty, and the sharpness of the softmax of its values, are
    those of least cross-entropy of the exact leave-one-out values."""
    values = np.maximum(len(labels) * columns.spread, 1e-30)
    basis = columns.turned / np.sqrt(values)
    found = None
    for alpha in RIDGES:
        held_out = loo_from_spectrum(
            values[None], basis[None], labels, classes, (alpha,), groups
        ).predictions[0]
        sharpness, loss = _sharpen(held_out, labels)
        if found is None or loss < found[0]:
            found = loss, alpha, sharpness, held_out
    assert found is not None
    _, alpha, sharpness, held_out = found
    targets = one_hot(labels, classes)
    middle = targets.mean(axis=0)
    ridge = alpha * values.sum() / len(labels)
    weights = columns.turned.T @ (targets - middle) / (values + ridge)[:, None]
    return columns.head(sharpness * weights, sharpness * middle, softmax(sharpness * held_out))


def _choose(
    solver: _Solver, labels: Labels, penalties: Sequence[float], folds: Labels
) -> tuple[float, Solution, Floats, float]:
    """The penalty of least held-out cross-entropy at its best temperature, a solution near it, its held-out
    predictions at that temperature, and the temperature's inverse. Without a temperature, many columns on few
    images would ask for a stronger penalty than accuracy does, to be less sure. Each fold walks the penalties
    from strong to weak, starting where the last one ended."""
    solutions: list[Solution | None] = [None] * FOLDS
    found = None
    for penalty in sorted(penalties, reverse=True):
        logs = np.empty(solver.targets.shape)
        for fold in range(FOLDS):
            inside = folds != fold
            solution = solver.solve(inside, penalty, solutions[fold], FOLD_STEPS)
            logs[~inside] = np.log(np.maximum(solver.predict(solution)[~inside], LEAST))
            solutions[fold] = solution
        sharpness, loss = _sharpen(logs, labels, TEMPERATURES)
        if found is not None and loss >= found[0]:
            break  # still weaker ones are worse, and dearer to fit
        found = loss, penalty, solutions[-1], logs, sharpness
    assert found is not None
    _, best, near, logs, sharpness = found
    assert near is not None
    return best, near, softmax(sharpness * logs), sharpness


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
        self.columns, self.variances = columns.astype(np.float32), variances
        self.targets = targets.astype(np.float32)

    def solve(self, rows: NDArray[np.bool_], penalty: float, start: Solution | None, steps: int) -> Solution:
        """Minimise mean cross-entropy + penalty / 2 |weights|^2 over the chosen rows."""
        from scipy.optimize import minimize

        targets = self.targets[rows]
        n, classes = targets.shape
        curvature = self.variances * (classes - 1) / classes**2 + penalty
        stretch = 1.0 / np.sqrt(curvature)
        columns = np.full((n, len(stretch) + 1), np.sqrt(classes), dtype=np.float32)
        np.multiply(self.columns[rows], stretch.astype(np.float32), out=columns[:, :-1])
        ridge = np.append(penalty / curvature, 0.0)[:, None]

        def objective(flat: Floats) -> tuple[float, Floats]:
            u = flat.reshape(-1, classes)
            scores = columns @ u.astype(np.float32)
            scores -= scores.max(axis=1, keepdims=True)
            powers = np.exp(scores)
            total = powers.sum(axis=1, keepdims=True)
            loss = (np.log(total[:, 0]) - (scores * targets).sum(axis=1)).mean(dtype=np.float64)
            slope = columns.T @ (powers / total - targets) / n + ridge * u
            return float(loss + 0.5 * (ridge * u**2).sum()), slope.ravel()

        u = np.zeros((columns.shape[1], classes))
        if start is not None:
            u[:-1], u[-1] = start[0] / stretch[:, None], start[1] / np.sqrt(classes)
        options = {"maxiter": steps, "gtol": 1e-4, "ftol": 1e-6}
        u = minimize(objective, u.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(u.shape)
        return stretch[:, None] * u[:-1], np.sqrt(classes) * u[-1]

    def predict(self, solution: Solution) -> Floats:
        return softmax(self.columns @ solution[0] + solution[1])


def fit_kernel(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None,
    seed: int,
    pixels: int = 0,
) -> Fit:
    """RBF least-squares head (kernel ridge on one-hot targets), width and penalty by exact leave-one-out.

    Its held-out values also set the sharpness of the softmax that turns values into probabilities. Of many
    rows, a sample chooses the width. The last `pixels` columns, if any, weigh as much in a distance as all
    others together: otherwise hundreds of pixels would drown a few scores.
    """
    mean, scale = features.mean(axis=0), column_scale(features, pixels)
    if pixels:
        width = features.shape[1]
        scale = scale * np.sqrt(2.0 * np.repeat([width - pixels, pixels], [width - pixels, pixels]) / width)
    z = (features - mean) / scale
    widths: Sequence[float] = KERNEL_WIDTHS
    if len(z) > KERNEL_SAMPLE:
        rows = np.random.default_rng([seed, len(z)]).permutation(len(z))[:KERNEL_SAMPLE]
        some = None if groups is None else groups[rows]
        widths = (min(widths, key=lambda w: _kernel_at(w, z[rows], labels[rows], classes, some)[0]),)
    fits = (_kernel_at(width, z, labels, classes, groups) for width in widths)
    _, gamma, dual, bias, held_out = min(fits, key=lambda fit: fit[0])
    return Fit(dual, bias, mean, scale, held_out, z, gamma)


def _kernel_at(
    width: float, z: Floats, labels: Labels, classes: int, groups: NDArray[Any] | None
) -> tuple[float, float, Floats, Floats, Floats]:
    """Held-out loss, gamma, dual coefficients, bias and held-out scores at one kernel width."""
    gamma = width / z.shape[1]
    targets = one_hot(labels, classes)
    gram = np.exp(-gamma * squared_distances(z, z))
    middle = gram.mean(axis=0)
    values, basis = np.linalg.eigh(gram - middle - middle[:, None] + middle.mean())
    values = np.maximum(values, max(values[-1] * 1e-13, 1e-30))
    best_loss, best_alpha, best_sharpness, best_values = np.inf, KERNEL_ALPHAS[0], 1.0, targets
    for alpha in KERNEL_ALPHAS:
        held_out = loo_from_spectrum(
            values[None], basis[None], labels, classes, (alpha,), groups
        ).predictions[0]
        sharpness, loss = _sharpen(held_out, labels)
        if loss < best_loss:
            best_loss, best_alpha, best_sharpness, best_values = loss, alpha, sharpness, held_out
    ridge = best_alpha * values.sum() / len(z)
    dual = basis @ ((basis.T @ (targets - targets.mean(axis=0))) / (values + ridge)[:, None])
    dual -= dual.mean(axis=0)  # the kernel is centred, the serving one is not
    bias = targets.mean(axis=0) - middle @ dual
    held_out = softmax(best_sharpness * best_values)
    return float(best_loss), gamma, best_sharpness * dual, best_sharpness * bias, held_out


def _sharpen(values: Floats, labels: Labels, factors: Floats = SHARPNESS) -> tuple[float, float]:
    """The factor before the softmax of least cross-entropy, and that loss."""
    rows = np.arange(len(labels))
    losses = [-np.log(np.maximum(softmax(f * values)[rows, labels], LEAST)).mean() for f in factors]
    best = int(np.argmin(losses))
    return float(factors[best]), float(losses[best])
