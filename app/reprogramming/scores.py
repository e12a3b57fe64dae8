"""What a source model's scores mean, turned into numbers that a mapping can add up.

Letters: N images, K source labels. Leading axes (views, candidates) pass through untouched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.contracts import ScoreKind, Scores

_LEAST = 1e-7  # resolution of a float32 next to 1: no smaller floor is honest
_UNKNOWN = 1e-4  # floor when nothing was returned at all
_MOST_DECIMALS = 7
_ORDINAL = ("severity", "likelihood")


def score_floor(scores: Scores, kind: ScoreKind) -> float:
    """The least score worth telling from smaller ones, in the scores' own units.

    Half the measured resolution (the decimals seen); half the smallest returned score when some were
    censored, or when nothing was rounded. For logits and ordinal codes, what stands for a censored one: below
    all returned, so that "not told" is never read as the code 0. Hard labels have floor 0: "not named" is
    their zero.
    """
    seen = scores[np.isfinite(scores)]
    if kind == "label":
        return 0.0
    if kind in _ORDINAL:
        return float(seen.min() - 0.5) if seen.size else -0.5
    if kind == "logit":
        return float(seen.min() - 1.0) if seen.size else 0.0
    unit = 100.0 if kind == "percent" else 1.0
    positive = seen[seen > 0] / unit
    if not positive.size:
        return _UNKNOWN * unit
    floor = float(positive.min()) / 2
    digits = None if np.isnan(scores).any() else decimals(seen)
    if digits is not None:
        floor = min(floor, 0.5 * 10.0**-digits / unit)
    return max(floor, _LEAST) * unit


def decimals(seen: NDArray[np.float64]) -> int | None:
    """The fewest decimals (1 to 7) that write every value; None when the values are not rounded.

    Values were float32 once: a rounded one is off by up to 6e-8 of itself.
    """
    for digits in range(1, _MOST_DECIMALS + 1):
        step = 10.0**-digits
        if bool(np.all(np.abs(seen - np.round(seen / step) * step) <= 1.2e-7 * np.abs(seen) + 1e-12)):
            return digits
    return None


def log_scores(scores: Scores, floor: float | NDArray[np.float64], kind: ScoreKind) -> Scores:
    """(..., N, K) scores to features on a scale where evidence adds; NaN (censored) and less -> floor.

    probability: log p. independent: log-odds, clipped at floor and 1 - floor; percent the same after / 100.
    logit: as it is. severity, likelihood: the ordinal code itself. label: 1 where named, else 0.
    `floor` is a number or (K,), in the scores' units. Rows follow each other in memory, whatever came in: the
    last bit of a sum depends on it.
    """
    scores = np.asarray(scores, order="C")
    if kind == "logit" or kind in _ORDINAL:
        return np.where(np.isnan(scores), floor, scores)
    if kind == "label":
        return (np.nan_to_num(scores, nan=0.0) > 0).astype(np.float64)
    unit = 100.0 if kind == "percent" else 1.0
    low = np.asarray(floor) / unit
    clipped = np.fmax(scores / unit, low)  # fmax: NaN loses
    if kind == "probability":
        return np.log(clipped)
    clipped = np.fmin(clipped, 1.0 - low)
    return np.log(clipped) - np.log1p(-clipped)


def shares(scores: Scores, kind: ScoreKind) -> Scores:
    """(..., N, K) scores to non-negative numbers that may be averaged over labels (BAR eq. 3).

    Logits become a softmax, percents fractions. A censored score is at most the smallest returned one and
    at most its part of what is missing to 1; of ordinal codes, which sum to nothing, half the smallest.
    """
    scores = np.asarray(scores, order="C")
    if kind == "logit":
        known = np.where(np.isnan(scores), -np.inf, scores)
        top = known.max(axis=-1, keepdims=True)
        powers = np.exp(known - np.where(np.isfinite(top), top, 0.0))
        return powers / np.maximum(powers.sum(axis=-1, keepdims=True), 1e-300)
    scaled = np.maximum(scores / (100.0 if kind == "percent" else 1.0), 0.0)
    missing = np.isnan(scaled)
    if not missing.any():
        return scaled
    smallest = np.where(missing, np.inf, scaled).min(axis=-1, keepdims=True)
    if kind in _ORDINAL:
        return np.where(missing, np.where(np.isfinite(smallest), smallest / 2, 0.0), scaled)
    rest = np.maximum(0.0, 1.0 - np.nansum(scaled, axis=-1, keepdims=True))
    share = np.minimum(smallest, rest / np.maximum(1, missing.sum(axis=-1, keepdims=True)))
    return np.where(missing, share, scaled)
