"""Statistics: how right a program is, how sure that is, and whether it is worth its price.

Letters: n test images, T target labels. Nothing here chooses anything by test data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import comb, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels, TargetScores
from app.reprogramming import heads
from app.reprogramming.splits import fold_numbers, stratified_split

__all__ = ["stratified_split"]

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

Z95 = 1.959963984540054


def accuracy(labels: Labels, predicted: Labels) -> float:
    """Share of equal entries."""
    return float((labels == predicted).mean())


def wilson(correct: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927); (0, 1) when nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    p, zz = correct / n, z * z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def ends(correct: int, n: int) -> list[float]:
    """`wilson` as documents have it."""
    return [round(end, 6) for end in wilson(correct, n)]


def with_interval(figures: Mapping[str, Any], images: int | None) -> dict[str, Any]:
    """`figures` with `val_ci95` beside their `val_accuracy`, which is a share of so many validation images,
    and the same for a step's own candidate, and for the leader of a race on its `loo_images`; as they are
    where one of the two is not known."""
    seen = {"val": images, "candidate_val": images, "loo": figures.get("loo_images")}
    known = {name: (figures.get(f"{name}_accuracy"), n) for name, n in seen.items()}
    sure = {f"{k}_ci95": ends(round(v * n), n) for k, (v, n) in known.items() if n and v is not None}
    return {**figures, **sure}


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float], n: int, seed: int, rounds: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of statistic(rows) over resampled rows of n."""
    rng = np.random.default_rng([seed, n, rounds])
    values = [statistic(rng.integers(0, n, n)) for _ in range(rounds)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.intp]:
    """(T, T) counts: row = true label, column = predicted."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def balanced_accuracy(labels: Labels, predicted: Labels) -> float:
    """Mean recall over the classes that occur."""
    there = np.bincount(labels)
    right = np.bincount(labels[labels == predicted], minlength=len(there))
    return float(np.mean(right[there > 0] / there[there > 0]))


def macro_f1(labels: Labels, predicted: Labels) -> float:
    """Mean F1 over the classes that occur in labels or predictions."""
    return float(np.nanmean(f1_scores(labels, predicted, int(max(labels.max(), predicted.max())) + 1)))


def f1_scores(labels: Labels, predicted: Labels, classes: int) -> Floats:
    """(T,) F1 of each class; NaN for one that is neither in the labels nor predicted."""
    both = np.bincount(labels[labels == predicted], minlength=classes)
    sizes = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    return np.divide(2 * both, sizes, out=np.full(classes, np.nan), where=sizes > 0)


def f1_ends(both: int, either: int) -> list[float] | None:
    """95 % interval of a class's F1 from the images that are of the class and called so (`both`), and those
    that are the one or the other (`either`); None without any. F1 = 2 s / (1 + s) grows with the share
    s = both / either, so Wilson's interval of that share says it; resampling says 100 to 100 % of a class of
    five that are all found."""
    if not either:
        return None
    return [round(2 * end / (1 + end), 6) for end in wilson(both, either)]


def auroc(target_scores: TargetScores, labels: Labels) -> float | None:
    """Area under the ROC curve, one class against the rest, mean over classes; None for a single class."""
    areas: list[float] = []
    for j in range(target_scores.shape[1]):
        positive = labels == j
        n = int(positive.sum())
        if 0 < n < len(labels):
            ranks = _ranks(target_scores[:, j])
            areas.append((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))
    return float(np.mean(areas)) if areas else None


def _ranks(values: Floats) -> Floats:
    """1-based ranks, equal values sharing their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[group]


def ece(target_scores: TargetScores, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error of the top score (Guo et al. 2017), equal-width bins."""
    top = target_scores.max(axis=1)
    right = target_scores.argmax(axis=1) == labels
    which = np.minimum((top * bins).astype(np.intp), bins - 1)
    gaps = np.abs(np.bincount(which, right - top, minlength=bins))
    return float(gaps.sum() / len(labels))


def per_class(counts: NDArray[np.intp], names: Sequence[str]) -> list[dict[str, Any]]:
    """Support, recall, precision and F1 of each class from a (T, T) confusion, each with its 95 % interval.
    None where undefined."""
    rows: list[dict[str, Any]] = []
    for j, name in enumerate(names):
        both, support, predicted = int(counts[j, j]), int(counts[j].sum()), int(counts[:, j].sum())
        rows.append(
            {
                "label": name,
                "support": support,
                "recall": round(both / support, 6) if support else None,
                "recall_ci95": ends(both, support) if support else None,
                "precision": round(both / predicted, 6) if predicted else None,
                "precision_ci95": ends(both, predicted) if predicted else None,
                "f1": round(2 * both / (support + predicted), 6) if support + predicted else None,
                "f1_ci95": f1_ends(both, support + predicted - both),
            }
        )
    return rows


def mcnemar(correct_a: Flags, correct_b: Flags) -> float:
    """Two-sided exact p-value that two classifiers are right equally often on the same images."""
    a, b = int((correct_a & ~correct_b).sum()), int((~correct_a & correct_b).sum())
    tail = sum(comb(a + b, k) for k in range(min(a, b) + 1))
    return min(1.0, 2 * tail / 2 ** (a + b))


def paired_difference_interval(correct_a: Flags, correct_b: Flags, z: float = Z95) -> tuple[float, float]:
    """95 % interval of accuracy a - b on the same n images (Agresti and Min 2005: half a count is added to
    each cell, so that it holds for few disagreements)."""
    n = len(correct_a) + 2.0
    a, b = (correct_a & ~correct_b).sum() + 0.5, (~correct_a & correct_b).sum() + 0.5
    difference = (a - b) / n
    half = z * sqrt((a + b) - (a - b) ** 2 / n) / n
    return max(-1.0, float(difference - half)), min(1.0, float(difference + half))


def verdict(
    program: Flags,
    linear_head: Flags,
    raw_pixels: Flags,
    *,
    queries_per_prediction: int,
    scores_alone: Flags | None = None,
    ground: str = "pixels",
    plain: bool = False,
) -> dict[str, Any]:
    """Does the program help? Each argument says which test images were classified rightly, (n,).

    `program_helps`: right more often than a linear head on the plain image's scores, by McNemar at 5 %;
    `p_value` is that test's. `beats_pixels`: the same against the best model on raw pixels, which costs no
    query. A program that reads pixels as well is held against the linear head without them
    (`scores_alone`), or it would be praised for what the pixels say. `ground` is what the free model learns
    from, in one word. `plain`: what is served is the picture as it is, so that any gain is the head's and no
    program helps. The sentence says all of it in plain words.
    """
    asked = program if scores_alone is None else scores_alone
    head_p, pixels_p = mcnemar(asked, linear_head), mcnemar(program, raw_pixels)
    low, high = paired_difference_interval(asked, linear_head)
    gain, above_pixels = float(asked.mean() - linear_head.mean()), float(program.mean() - raw_pixels.mean())
    gains, beats = gain > 0 and head_p < 0.05, above_pixels > 0 and pixels_p < 0.05
    said = [_over_head(gains, gain, low, high, queries_per_prediction, head_p)]
    if plain:
        said.insert(0, _NOTHING_ADDED[scores_alone is not None])
    if scores_alone is not None:
        said.append(f"With your pixels beside the scores it is right {_share(program)}.")
    said.append(_over_pixels(beats, program, raw_pixels, ground))
    return {
        "program_helps": gains and not plain,
        "p_value": head_p,
        "sentence": " ".join(said),
        "gain": {"points": round(100 * gain, 2), "ci95": [round(100 * low, 2), round(100 * high, 2)]},
        "beats_pixels": beats,
        "pixels_p_value": pixels_p,
    }


#: What a verdict begins with where the plain picture is served: with a head on scores alone, and fused.
_NOTHING_ADDED = (
    "No program beats the plain picture, which is served with its best head.",
    "No program adds to the plain picture with your pixels beside its scores.",
)


def _over_head(gains: bool, gain: float, low: float, high: float, queries: int, p: float) -> str:
    """Shares of the images, queries per prediction, and the p-value that decides."""
    head, interval = "a linear head on the API's scores", f"95 % interval {_points(low)} to {_points(high)}"
    cost = f"costs {queries} {'query' if queries == 1 else 'queries'} a prediction"
    if gains:
        return f"Adds {_points(gain)} points over {head}, {interval}; {cost}."
    unsure = f", but p = {p:.3f} by the exact test that decides" if low > 0 else ""
    return f"Does not beat {head} (difference {_points(gain)} points, {interval}{unsure}); {cost}."


def _over_pixels(beats: bool, program: Flags, pixels: Flags, ground: str) -> str:
    if beats:
        gain = float(program.mean() - pixels.mean())
        low, high = (_points(end) for end in paired_difference_interval(program, pixels))
        over = f"{_points(gain)} points ({low} to {high})"
        return f"Beats a model on your {ground}, which needs no API, by {over}."
    return f"Does not beat a model on your {ground}, right {_share(pixels)} without a query: do not buy this."


def _share(right: Flags) -> str:
    """How many are right, with the 95 % interval."""
    low, high = wilson(int(right.sum()), len(right))
    return f"{right.mean():.1%} ({low:.1%} to {high:.1%})"


def _points(share: float) -> str:
    """A share as percentage points, without a needless decimal."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def majority(labels: Labels) -> int:
    """The commonest class; the first of equals."""
    return int(np.bincount(labels).argmax())


def raw_pixel_baseline(train: Floats, labels: Labels, test: Floats, seed: int) -> Labels:
    """(n,) predictions without any query: logistic regression, RBF SVM or random forest on pixel features,
    whichever is right most often in 3-fold cross-validation of the training rows."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.svm import SVC

    def forest(x: Floats, y: Labels, new: Floats) -> Labels:
        return RandomForestClassifier(200, random_state=seed).fit(x, y).predict(new)

    def svm(x: Floats, y: Labels, new: Floats) -> Labels:
        mean, scale = x.mean(axis=0), heads.column_scale(x)
        return SVC(C=5).fit((x - mean) / scale, y).predict((new - mean) / scale)

    def logistic(x: Floats, y: Labels, new: Floats) -> Labels:
        fit = heads.fit_linear(x, y, int(labels.max()) + 1, (3e-2,), None, seed)
        return ((new - fit.mean) / fit.scale @ fit.weights + fit.bias).argmax(axis=1)

    parts = fold_numbers(labels, 3, seed)
    best, best_right = logistic, -1
    for model in (logistic, svm, forest):
        right = 0
        for fold in range(3):
            inside = parts != fold
            right += int((model(train[inside], labels[inside], train[~inside]) == labels[~inside]).sum())
        if right > best_right:
            best, best_right = model, right
    return best(train, labels, test).astype(np.intp)
