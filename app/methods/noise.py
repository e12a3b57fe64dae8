"""Is an estimated gradient worth its queries? c, from the losses that the steps ask anyway.

With g_i the gradient of image i and g their mean, c = E|g_i - g|^2 / |g|^2. A direction of cosine 0.7 to the
true gradient costs about 2 d (1 + c) queries, whatever the estimator: only d and c enter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from app.optimisers import AnyOptimiser, Bar, CmaEs, Nes, Prior, Spsa, Zoo

LEAST_PAIRS = 500  # (image, direction) slopes before c is believed
HOPELESS = 1e9  # stands for a c that cannot be told from infinity


def pairs(optimiser: AnyOptimiser, candidates: int) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """Which rows of `ask` differ by one direction each, as two index arrays; None where none do."""
    match optimiser:
        case Bar() | Prior():  # the base point, then a row per direction
            return np.arange(1, candidates), np.zeros(candidates - 1, np.intp)
        case Spsa() | Nes() | Zoo():  # all plus rows, then all minus rows
            half = candidates // 2
            return np.arange(half), np.arange(half, 2 * half)
        case CmaEs():
            return None


def gathered(known: Mapping[str, float], found: NDArray[np.float64]) -> dict[str, float]:
    """Sums over slopes (q, n) so far. For a random direction u the product of two images' slopes is on
    average g_i . g_k / d, so over i != k it estimates |g|^2 / d without bias, over i = k E|g_i|^2 / d."""
    q, n = found.shape
    if n < 2:
        return dict(known)
    own = (found**2).mean(axis=1)
    across = (found.sum(axis=1) ** 2 - (found**2).sum(axis=1)) / (n * (n - 1))
    return {
        "own": known.get("own", 0.0) + float(own.sum()),
        "across": known.get("across", 0.0) + float(across.sum()),
        "pairs": known.get("pairs", 0.0) + q * n,
    }


def ratio(known: Mapping[str, float]) -> float | None:
    """c; None before LEAST_PAIRS slopes. HOPELESS where the mean gradient is lost in the noise."""
    if known.get("pairs", 0.0) < LEAST_PAIRS:
        return None
    if known["across"] <= 0:
        return HOPELESS
    return min(HOPELESS, max(0.0, known["own"] / known["across"] - 1.0))


def queries_for_a_direction(c: float, dim: int) -> int:
    """2 d (1 + c): for one gradient of cosine 0.7."""
    return round(min(2.0 * dim * (1.0 + c), HOPELESS))


def warning(c: float, dim: int, budget: int) -> dict[str, str] | None:
    """The concern, when one direction costs more than the whole budget."""
    needed = queries_for_a_direction(c, dim)
    if needed <= budget:
        return None
    text = f"about {needed:,}" if needed < HOPELESS else "more than can be told from these"
    return {
        "code": "gradient_lost_in_noise",
        "detail": f"Images disagree so much on the gradient (c = {c:,.0f} in {dim} dimensions) that one "
        f"direction of cosine 0.7 costs {text} queries; the budget is {budget:,}.",
        "hint": f"Allow {needed:,} queries, lower program.resolution, or use race or auto, which need no "
        "gradient."
        if needed < HOPELESS
        else "Use race or auto, which need no gradient.",
    }
