"""Label mapping: source scores to target scores. A mapping is data, kept as plain arrays.

Letters: N images, K source labels, V views, F = V * K feature columns, T target labels. The mappings that
are counted are made here (BAR, ILM, BLM); `heads` holds the numerics of the fitted ones. Applying any of
them needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from app.contracts import Arrays, Labels, ScoreKind, Scores, TargetScores
from app.errors import BadRequest
from app.reprogramming import heads, kernel, pooled
from app.reprogramming.heads import softmax, squared_distances
from app.reprogramming.ridge import LeaveOneOut, loo_ridge
from app.reprogramming.scores import log_scores, score_floor, shares
from app.reprogramming.splits import fold_numbers

__all__ = ["LeaveOneOut", "log_scores", "loo_ridge", "score_floor", "shares"]  # what methods ask of this room

Floats = NDArray[np.float64]
Kind = Literal["group", "linear", "kernel", "mixed", "whitened"]
EXTRAS = ("support", "linear", "turn")  # arrays that only some kinds have


@dataclass(frozen=True, eq=False)
class LabelMapping:
    """Columns to target scores.

    group: columns are shares (`scores.shares`); h = x @ weights, then scaled to sum 1 (BAR eq. 3).
    linear: columns are log-scores; softmax(z @ weights + bias), z = (x - mean) / scale.
    kernel: the same with z replaced by exp(-gamma |z - support_i|^2), i = 1 .. M.
    mixed: softmax of a kernel head's values and z @ linear together.
    whitened: the same, distances from the support taken of z @ turn.
    """

    kind: Kind
    weights: Floats  # (F, T); of a head with support (M, T), the dual coefficients
    bias: Floats  # (T,)
    mean: Floats  # (F,)
    scale: Floats  # (F,)
    support: Floats | None = None  # (M, F), standardised; (M, R) of a whitened head
    gamma: float = 0.0
    linear: Floats | None = None  # (F, T), of a mixed or whitened head
    turn: Floats | None = None  # (F, R), of a whitened head

    def __post_init__(self) -> None:
        width, classes = self.weights.shape
        columns = width
        if (self.kind in ("kernel", "mixed", "whitened")) != (self.support is not None):
            raise ValueError("support vectors belong to a kernel mapping, and it needs them")
        if (self.kind in ("mixed", "whitened")) != (self.linear is not None):
            raise ValueError("linear weights beside a kernel belong to a mixed mapping, and it needs them")
        if (self.kind == "whitened") != (self.turn is not None):
            raise ValueError("a turn of the columns belongs to a whitened mapping, and it needs one")
        if self.support is not None:
            if self.support.ndim != 2 or len(self.support) != width:
                raise ValueError("one row of dual coefficients per support vector")
            columns = self.support.shape[1]
        if self.turn is not None:
            if self.turn.ndim != 2 or self.turn.shape[1] != columns:
                raise ValueError("the turn does not fit the support vectors")
            columns = len(self.turn)
        if self.linear is not None and self.linear.shape != (columns, classes):
            raise ValueError("linear weights do not fit the support vectors")
        if self.mean.shape != (columns,) or self.scale.shape != (columns,) or self.bias.shape != (classes,):
            raise ValueError("mean, scale or bias do not fit the weights")
        if not all(np.isfinite(a).all() for a in self._arrays().values()) or not np.isfinite(self.gamma):
            raise ValueError("a mapping is finite")
        if not (self.scale > 0).all():
            raise ValueError("scales are positive")

    def apply(self, columns: Scores) -> TargetScores:
        """(..., N, F) -> (..., N, T), rows sum to 1. Group: shares (censored NaN are filled by its rule);
        the others: log-scores without NaN."""
        if self.kind == "group":
            mass = np.maximum(shares(columns, "probability"), 0.0) @ self.weights
            total = mass.sum(axis=-1, keepdims=True)
            return np.where(total > 0, mass / np.where(total > 0, total, 1.0), 1.0 / mass.shape[-1])
        z = (columns - self.mean) / self.scale
        values = self.bias if self.linear is None else z @ self.linear + self.bias
        if self.support is not None:
            z = z if self.turn is None else z @ self.turn
            z = np.exp(-self.gamma * squared_distances(z, self.support))
        return softmax(z @ self.weights + values)

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Plain arrays and JSON values."""
        return self._arrays(), {"kind": self.kind, "gamma": self.gamma}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> LabelMapping:
        """The inverse. Raises KeyError, TypeError or ValueError for what is no mapping."""
        if config["kind"] not in get_args(Kind):
            raise ValueError(f"no mapping is called {config['kind']!r}")
        names = ("weights", "bias", "mean", "scale")
        return LabelMapping(
            config["kind"],
            *(np.asarray(arrays[name], dtype=np.float64) for name in names),
            gamma=float(config["gamma"]),
            **{name: np.asarray(arrays[name], np.float64) for name in EXTRAS if name in arrays},
        )

    def _arrays(self) -> Arrays:
        arrays: Arrays = {"weights": self.weights, "bias": self.bias, "mean": self.mean, "scale": self.scale}
        parts = {name: getattr(self, name) for name in EXTRAS}
        return arrays | {name: part for name, part in parts.items() if part is not None}


def group_mapping(weights: Floats) -> LabelMapping:
    """From (K, T) non-negative weights on shares."""
    width, classes = weights.shape
    return LabelMapping("group", weights, np.zeros(classes), np.zeros(width), np.ones(width))


def _check_width(source_labels: int, classes: int, m: int) -> None:
    if m * classes <= source_labels:
        return
    most = source_labels // classes
    hint = (
        f"At most {most} labels per class are possible here."
        if most
        else "Use the mapping `linear` or `bayesian`, or several queries per prediction."
    )
    raise BadRequest(
        f"{classes} classes x {m} labels per class are more than the model's {source_labels} source labels.",
        code="mapping_too_wide",
        hint=hint,
        param="method.mapping.labels_per_class",
    )


def random_mapping(source_labels: int, classes: int, m: int, seed: int) -> LabelMapping:
    """m source labels per class, disjoint, drawn at random (BAR section 3.3).

    Raises BadRequest `mapping_too_wide`.
    """
    _check_width(source_labels, classes, m)
    drawn = np.random.default_rng([seed, source_labels, classes]).permutation(source_labels)[: m * classes]
    weights = np.zeros((source_labels, classes))
    weights[drawn, np.arange(m * classes) % classes] = 1.0 / m
    return group_mapping(weights)


def frequency_mapping(scores: Scores, labels: Labels, classes: int, m: int) -> LabelMapping:
    """The m source labels most often on top for each class (BAR section 3.3); mean share breaks ties.

    A label wanted by several classes goes to the one where it ranks higher. scores (N, K) of images under
    the program that will be served. Raises BadRequest `mapping_too_wide`.
    """
    known = shares(scores, "probability")
    _check_width(known.shape[1], classes, m)
    means = _class_means(known, labels, classes)
    merit = _class_sums(_top(known, 1) > 0, labels, classes) + means / (1.0 + means.max())
    rank = np.argsort(np.argsort(-merit, axis=0, kind="stable"), axis=0)  # (K, T): 0 is a class's best
    weights = np.zeros_like(merit)
    free, room = np.ones(len(merit), dtype=bool), np.full(classes, m)
    for flat in np.lexsort((-merit.ravel(), rank.ravel())):
        label, target = divmod(int(flat), classes)
        if free[label] and room[target]:
            weights[label, target] = 1.0 / m
            free[label] = False
            room[target] -= 1
    return group_mapping(weights)


#: Iterative label mapping (ILM, Chen et al. 2023) is the frequency mapping, made again from the scores of
#: the last step each time the program moves.
iterative = frequency_mapping


def bayesian_mapping(
    scores: Scores, labels: Labels, classes: int, top: int = 1, smoothing: float = 1.0
) -> LabelMapping:
    """Bayesian label mapping (Cai et al. 2024): P(class | source label) from joint counts, with the Laplace
    smoothing in its denominator, then each class's column scaled to sum 1.

    top 1 counts the top label (BLM); top k > 1 adds up the shares of the k highest (BLM+).
    """
    known = shares(scores, "probability")
    evidence = _top(known, top)
    joint = _class_sums(evidence > 0 if top == 1 else evidence, labels, classes)
    posterior = joint / (joint.sum(axis=1, keepdims=True) + smoothing)
    total = posterior.sum(axis=0)
    uniform = np.full(posterior.shape, 1.0 / len(posterior))
    return group_mapping(np.where(total > 0, posterior / np.where(total > 0, total, 1.0), uniform))


def _top(known: Floats, k: int) -> Floats:
    """Shares (N, K) with all but each row's k highest set to 0 (the first of equals)."""
    kept = np.argsort(-known, axis=1, kind="stable")[:, :k]
    out = np.zeros_like(known)
    np.put_along_axis(out, kept, np.take_along_axis(known, kept, axis=1), axis=1)
    return out


def _class_sums(rows: NDArray[Any], labels: Labels, classes: int) -> Floats:
    """(N, K) -> (K, T) sums over the images of each class."""
    return rows.T.astype(np.float64) @ np.eye(classes)[labels]


def _class_means(rows: Floats, labels: Labels, classes: int) -> Floats:
    counts = np.bincount(labels, minlength=classes)
    return _class_sums(rows, labels, classes) / np.maximum(counts, 1)


def linear_mapping(
    features: Floats,
    labels: Labels,
    classes: int,
    l2: float | Literal["cv"] = "cv",
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    pixels: int = 0,
    view: int = 0,
) -> LabelMapping:
    """Multinomial logistic head on log-scores (n, F); its penalty by cross-validation, groups together. Of
    many labels (`view`, see `view_width`) one on each view, pooled with ridge regression on all of them."""
    if l2 == "cv":
        return linear_head(features, labels, classes, groups, seed, pixels, view)[0]
    return _mapping(heads.fit_linear(features, labels, classes, (l2,), groups, seed, pixels, view))


def linear_head(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    pixels: int = 0,
    view: int = 0,
    aside: heads.Rows | None = None,
) -> tuple[LabelMapping, TargetScores]:
    """`linear_mapping` by cross-validation, and what it says of rows it has not seen, see `best_head`."""
    line = _line(features, labels, classes, groups, seed, pixels, view, aside)
    return _mapping(line), line.held_out


def view_width(source_labels: int, kind: ScoreKind) -> int:
    """Columns that a linear head centres together, row by row: a view's, where they are logarithms of many
    probabilities. 0: none; of a few, what they have in common tells the classes apart as well."""
    return source_labels if kind == "probability" and source_labels >= heads.MANY_LABELS else 0


def kernel_mapping(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    pixels: int = 0,
) -> LabelMapping:
    """RBF least-squares head on log-scores (n, F); width, penalty and sharpness by leave-one-out."""
    return kernel_head(features, labels, classes, groups, seed, pixels)[0]


def kernel_head(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    pixels: int = 0,
    aside: heads.Rows | None = None,
) -> tuple[LabelMapping, TargetScores]:
    """`kernel_mapping`, and what it says of rows it has not seen, see `best_head`."""
    fit = kernel.fit_kernel(features, labels, classes, groups, seed, pixels, aside)
    return _mapping(fit), fit.held_out


def best_head(
    features: Floats,
    labels: Labels,
    classes: int,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
    pixels: int = 0,
    view: int = 0,
    aside: heads.Rows | None = None,
) -> tuple[LabelMapping, TargetScores]:
    """The linear head, the kernel head or a mixture; and what it says of rows it has not seen, (n, T).

    The mapping is fitted on all rows. What is said of each row is by one fitted without it: out of fold, or
    leaving it out; of rows set `aside` (n,) by one whose every choice was made on the other rows alone.

    Few columns: the geometric mean of what the two say, each as strongly as held-out cross-entropy wants. A
    mean is rarely worse than the better of the two and often better than both (measured); a share of nothing
    leaves the other head alone. The last `pixels` columns are pixel features beside the scores (a fused
    head); `view`: see `view_width`.
    """
    line = _line(features, labels, classes, groups, seed, pixels, view, aside)
    if features.shape[1] - pixels > heads.FEW_COLUMNS:
        return _mapping(line), line.held_out
    bent = kernel.fit_kernel(features, labels, classes, groups, seed, pixels, aside)
    judged = heads.not_aside(labels, aside)
    *shares, held_out = pooled.pool(line.held_out, bent.held_out, labels, judged)
    return _mixed(line, bent, *shares), held_out


def cross_fit(
    features: Floats,
    labels: Labels,
    classes: int,
    fit: Callable[[Floats, Labels, int], LabelMapping] = linear_mapping,
    folds: int = 5,
    seed: int = 0,
    groups: NDArray[Any] | None = None,
) -> TargetScores:
    """(n, T) target scores of each row by a mapping fitted without its fold: what a head that interpolates
    its training rows can still learn from."""
    parts = fold_numbers(labels, folds, seed, groups)
    out = np.empty((len(labels), classes))
    for fold in np.unique(parts):
        outside = parts != fold
        out[~outside] = fit(features[outside], labels[outside], classes).apply(features[~outside])
    return out


def _line(
    features: Floats,
    labels: Labels,
    classes: int,
    groups: NDArray[Any] | None,
    seed: int,
    pixels: int,
    view: int,
    aside: heads.Rows | None = None,
) -> heads.Fit:
    if view:
        return pooled.fit_views(features, labels, classes, groups, seed, view, pixels, aside)
    return heads.fit_linear(features, labels, classes, heads.PENALTIES, groups, seed, pixels, aside=aside)


def _mixed(line: heads.Fit, bent: heads.Fit, one: float, other: float) -> LabelMapping:
    """The values of a linear head and of a kernel head, `one` and `other` times, before one softmax: the
    geometric mean of the two. The linear one reads the columns as the kernel one scales them."""
    weights = one * line.weights * (bent.scale / line.scale)[:, None]
    bias = one * (line.bias + (bent.mean - line.mean) / line.scale @ line.weights)
    if not other:
        return LabelMapping("linear", weights, bias, bent.mean, bent.scale)
    scaled = replace(bent, weights=other * bent.weights, bias=bias + other * bent.bias)
    return _mapping(scaled, weights if one else None)


def _mapping(fit: heads.Fit, linear: Floats | None = None) -> LabelMapping:
    """With `linear` weights (F, T) beside a kernel, if any."""
    kind: Kind = "linear" if fit.support is None else "kernel" if linear is None else "mixed"
    if fit.turn is not None:
        kind, linear = "whitened", np.zeros((len(fit.mean), len(fit.bias))) if linear is None else linear
    arrays = fit.weights, fit.bias, fit.mean, fit.scale, fit.support
    return LabelMapping(kind, *arrays, gamma=fit.gamma, linear=linear, turn=fit.turn)
