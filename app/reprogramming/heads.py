"""The numerics of fitted heads: softmax regression, its penalty by cross-validation. `kernel` and `pooled`
hold the others.

Letters: n images, F feature columns, T target labels. scipy is imported where a fit needs it, so that serving
never loads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels
from app.reprogramming.ridge import one_hot
from app.reprogramming.splits import fold_numbers

Floats = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.bool_]
Solution: TypeAlias = tuple[Floats, Floats]  # weights (r, T) on principal axes, bias (T,)

#: Of the squared weights, for features of unit variance and a mean loss.
PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
WEAKER = (3e-4, 1e-4)  # that are tried as well where what varies most is emphasised
FEW_COLUMNS = 100  # with more of them a kernel is no better than a line (measured), and far larger
#: Powers tried, see `Principal.emphasised`: of many labels' scores, and of few, which lean on each other.
EMPHASES, WHITENINGS = (0.0, 1.0), (0.0, -0.75)
MOST_EMPHASISED = 0.5  # of the axes: more are left where all vary alike, and there is nothing to emphasise
LEAST_SPREAD = 1e-4  # of the largest variance: an axis with less is not stretched further
FOLDS = 3
STEPS = 60  # of L-BFGS, at most; a fit inside cross-validation is stopped sooner
FOLD_STEPS = 15
MANY_LABELS = 20  # from here on the log-scores of a view are centred, image by image
#: Of many labels' scores: the axes beyond cost a third of the time and tell nothing (measured).
MOST_VARIANCE = 0.999
TEMPERATURES = np.geomspace(0.4, 2.5, 25)  # their inverses, before the softmax of a linear head
SHARPNESS = np.geomspace(0.5, 64.0, 29)  # before the softmax of least-squares values, or of many views' mean
LEAST = 1e-12  # probability, before a logarithm
ASIDE = -1  # the fold of rows set aside


@dataclass(frozen=True)
class Fit:
    """Arrays of a head (see `mapping.LabelMapping`) of all rows, and what was said of each without it."""

    weights: Floats
    bias: Floats
    mean: Floats
    scale: Floats
    #: (n, T) rows sum to 1. Of rows set aside: by the same head fitted on all others. Of the others, on which
    #: penalties and sharpness were chosen: out of fold; with a given penalty the fitted values.
    held_out: Floats
    support: Floats | None = None
    gamma: float = 0.0
    turn: Floats | None = None


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
    aside: Rows | None = None,
) -> Fit:
    """Multinomial logistic regression; with several penalties, the one and the whitening of least held-out
    loss. The labels of rows set `aside` (n,) have no part in that choice, nor in what is said of those rows.

    Columns are centred and scaled; the last `pixels` of them are pixel features. With `view`, so many columns
    at a time are the log-scores of one view: what they have in common says how flat a row of many scores is,
    not what it shows, and the head reads their differences alone. The problem is solved in the principal axes
    of the columns, each stretched by the root of its share of the Hessian: a rotation changes nothing under a
    squared penalty, and the stretch lets few L-BFGS steps do (a fit of 2,000 x 1,000 columns takes well under
    a second).
    """
    axes = Axes.of(features, view, pixels)
    return fit_logistic(axes, labels, classes, penalties, groups, seed, aside, whitenings(features, pixels))


def whitenings(features: Floats, pixels: int) -> Sequence[float]:
    """The powers that are tried on columns (n, F), the last `pixels` of them pixel features."""
    return WHITENINGS if features.shape[1] - pixels <= FEW_COLUMNS else (0.0,)


def not_aside(labels: Labels, aside: Rows | None) -> Rows:
    """(n,) the rows whose labels (n,) may choose: all, or those that are not set aside."""
    return np.ones(len(labels), bool) if aside is None else ~aside


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
class Principal:
    """Centred columns z (n, F) on orthonormal axes of their own, in falling or rising order of variance."""

    spread: Floats  # (r,) variances
    turned: Floats  # (n, r)
    _z: Floats | None  # where there are more columns than rows; the axes are z.T @ _inner then
    _inner: Floats

    @staticmethod
    def of(z: Floats, share: float = 1.0) -> Principal:
        """The axes that hold `share` of the variance."""
        n, width = z.shape
        wide = width > n
        values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
        values = np.maximum(values, 0.0)
        kept = np.arange(len(values))
        if share < 1:
            kept = kept[::-1]
            kept = kept[: np.searchsorted(np.cumsum(values[kept]), share * values.sum()) + 1]
        if not wide:
            return Principal(values[kept] / n, z @ vectors[:, kept], None, vectors[:, kept])
        kept = kept[values[kept] > values[-1] * 1e-12]
        roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
        return Principal(values[kept] / n, vectors * roots, z, vectors / roots)

    def emphasised(self, power: float, share: float = 1.0) -> Principal:
        """Each axis stretched by that power of its standard deviation, relative to the longest: under a
        squared penalty what varies most counts more, or for a negative power less (-1: all vary alike). Axes
        that hold `share` of the variance then are left."""
        longest = max(self.spread.max(initial=0.0), 1e-30)
        stretch = np.maximum(self.spread / longest, LEAST_SPREAD) ** (power / 2)
        spread = self.spread * stretch**2
        kept = np.arange(len(spread))
        if share < 1:
            kept = np.argsort(-spread, kind="stable")
            kept = kept[: np.searchsorted(np.cumsum(spread[kept]), share * spread.sum()) + 1]
        stretch = stretch[kept]
        return Principal(
            spread[kept], self.turned[:, kept] * stretch, self._z, self._inner[:, kept] * stretch
        )

    @property
    def width(self) -> int:
        """r."""
        return len(self.spread)

    def back(self, weights: Floats) -> Floats:
        """Weights (r, T) on the axes, as weights of the columns (F, T)."""
        weights = self._inner @ weights
        return weights if self._z is None else self._z.T @ weights


@dataclass(frozen=True)
class Axes:
    """Feature columns (n, F), centred and scaled, and turned into their principal axes."""

    features: Floats
    view: int
    pixels: int
    mean: Floats  # (F,) of the columns as a head reads them, see `row_centred`
    scale: Floats  # (F,)
    principal: Principal

    @staticmethod
    def of(features: Floats, view: int = 0, pixels: int = 0, share: float = 1.0) -> Axes:
        """The axes that hold `share` of the variance."""
        read = row_centred(features, view, pixels)
        mean, scale = read.mean(axis=0), column_scale(read, pixels)
        return Axes(features, view, pixels, mean, scale, Principal.of((read - mean) / scale, share))

    def emphasised(self, power: float) -> Axes:
        """See `Principal.emphasised`; 0 leaves them."""
        if not power:
            return self
        share = MOST_VARIANCE if power > 0 else 1.0
        return replace(self, principal=self.principal.emphasised(power, share))

    def head(self, weights: Floats, bias: Floats, held_out: Floats) -> Fit:
        """Of weights (r, T) on the axes."""
        weights = self.principal.back(weights)
        if not self.view:
            return Fit(weights, bias, self.mean, self.scale, held_out)
        # the same head on rows as they come
        weights = row_centred((weights / self.scale[:, None]).T, self.view, self.pixels).T
        return Fit(weights, bias, self.features.mean(axis=0), np.ones_like(self.scale), held_out)


def fit_logistic(
    columns: Axes,
    labels: Labels,
    classes: int,
    penalties: Sequence[float],
    groups: NDArray[Any] | None,
    seed: int,
    aside: Rows | None = None,
    emphases: Sequence[float] = (0.0,),
) -> Fit:
    """`fit_linear` of columns on their axes; with several `emphases`, see `Principal.emphasised`, the one of
    least held-out loss."""
    inside = not_aside(labels, aside)
    targets = one_hot(labels, classes)
    if len(penalties) == 1:
        solver = _Solver(columns.principal, targets)
        return columns.head(*_fitted(solver, _Choice.given(penalties[0], targets), aside))
    folds = np.full(len(labels), ASIDE)
    folds[inside] = fold_numbers(labels[inside], FOLDS, seed, None if groups is None else groups[inside])
    found = list[tuple[Axes, _Solver, _Choice]]()
    for power in emphases:
        axes = columns.emphasised(power)
        if power <= 0 or axes.principal.width <= columns.principal.width * MOST_EMPHASISED:
            solver = _Solver(axes.principal, targets)
            more = (penalties, FOLD_STEPS) if power <= 0 else ((*penalties, *WEAKER), STEPS)  # axes are few
            found.append((axes, solver, _choose(solver, labels, folds, *more)))
    axes, solver, choice = min(found, key=lambda one: one[2].loss)
    return axes.head(*_fitted(solver, choice, aside))


class _Choice(NamedTuple):
    """A penalty, and what came of it on folds of the rows that are not set aside."""

    loss: float  # held-out cross-entropy
    penalty: float
    rows: float | None  # that a fold was fitted on, on average; None: it holds for any number
    near: Solution | None  # of a fold
    sharpness: float  # the inverse of the best temperature
    held_out: Floats  # (n, T) at that temperature

    @staticmethod
    def given(penalty: float, targets: Floats) -> _Choice:
        """Without a fold: the fitted values are yet to come."""
        return _Choice(np.nan, penalty, None, None, 1.0, np.full(targets.shape, np.nan))

    def penalty_of(self, rows: int) -> float:
        """For a fit on so many: beside a mean loss the best penalty falls as the rows grow."""
        return self.penalty if self.rows is None else self.penalty * self.rows / rows


def _fitted(solver: _Solver, choice: _Choice, aside: Rows | None) -> tuple[Floats, Floats, Floats]:
    """Weights and bias on the axes, and what is said of rows not seen."""
    everyone = np.ones(len(solver.targets), bool)
    near, held_out = choice.near, choice.held_out.copy()
    if aside is not None:
        near = solver.solve(~aside, choice.penalty_of(int((~aside).sum())), near, STEPS)
        held_out[aside] = softmax(choice.sharpness * solver.values(near, aside))
    weights, bias = solver.solve(everyone, choice.penalty_of(len(everyone)), near, STEPS)
    unknown = np.isnan(held_out[:, 0])
    held_out[unknown] = softmax(solver.values((weights, bias), unknown))
    return choice.sharpness * weights, choice.sharpness * bias, held_out


def _choose(
    solver: _Solver, labels: Labels, folds: Labels, penalties: Sequence[float], steps: int
) -> _Choice:
    """The penalty of least held-out cross-entropy at its best temperature. Without one, many columns
    on few images would ask for a stronger penalty than accuracy does, to be less sure. Each fold walks the
    penalties from strong to weak, starting where the last one ended."""
    solutions: list[Solution | None] = [None] * FOLDS
    judged, found = folds != ASIDE, None
    for penalty in sorted(penalties, reverse=True):
        logs = np.zeros(solver.targets.shape)
        for fold in range(FOLDS):
            solution = solver.solve(judged & (folds != fold), penalty, solutions[fold], steps)
            logs[folds == fold] = np.log(np.maximum(softmax(solver.values(solution, folds == fold)), LEAST))
            solutions[fold] = solution
        sharpness, loss = sharpen(logs[judged], labels[judged], TEMPERATURES)
        if found is not None and loss >= found.loss:
            break  # still weaker ones are worse, and dearer to fit
        rows = judged.sum() * (FOLDS - 1) / FOLDS
        found = _Choice(loss, penalty, rows, solutions[-1], sharpness, softmax(sharpness * logs))
    assert found is not None
    return found


class _Solver:
    """Softmax regression on rotated columns; holds the data, no state between solves."""

    def __init__(self, columns: Principal, targets: Floats) -> None:
        self.columns, self.variances = columns.turned.astype(np.float32), columns.spread
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

    def values(self, solution: Solution, rows: Rows) -> Floats:
        """(m, T) of the chosen rows, before the softmax."""
        return self.columns[rows] @ solution[0].astype(np.float32) + solution[1]


def sharpen(values: Floats, labels: Labels, factors: Floats = SHARPNESS) -> tuple[float, float]:
    """The factor before the softmax of least cross-entropy, and that loss. It is convex in the factor."""
    values = values - values.max(axis=1, keepdims=True)
    truth = values[np.arange(len(labels)), labels]

    def loss(at: int) -> float:
        return float((np.log(np.exp(factors[at] * values).sum(axis=1)) - factors[at] * truth).mean())

    low, high = 0, len(factors) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if loss(middle) <= loss(middle + 1) else (middle + 1, high)
    return float(factors[low]), loss(low)
