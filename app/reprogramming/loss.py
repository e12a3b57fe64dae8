"""Losses on target scores: what a step of learning brings down. A batch of candidates at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels

_TINY = 1e-6  # below this a target score is noise of the API's rounding, not evidence


def class_weights(labels: Labels, classes: int) -> NDArray[np.float64]:
    """(T,) w_j = 1 / n_j (BAR, section 3.2), scaled so that the mean over these labels is 1.

    A class without an image gets weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def focal(
    target_scores: NDArray[np.float64],
    labels: Labels,
    gamma: float = 2.0,
    class_weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Mean over images of -w_y (1 - h_y)^gamma log h_y (BAR, section 3.2; Lin et al. 2017).

    target_scores (..., N, T), labels (N,), class_weights (T,) -> (...,); a scalar for one candidate.
    gamma 0 without weights is the cross-entropy.
    """
    return focal_per_image(target_scores, labels, gamma, class_weights).mean(axis=-1)


def focal_per_image(
    target_scores: NDArray[np.float64],
    labels: Labels,
    gamma: float = 2.0,
    class_weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The same before the mean: (..., N, T) -> (..., N)."""
    right = np.take_along_axis(
        target_scores, np.broadcast_to(labels[:, None], (*target_scores.shape[:-1], 1)), axis=-1
    )[..., 0]
    right = np.clip(right, _TINY, 1.0)
    losses = -np.log(right) * (1.0 - right) ** gamma
    if class_weights is not None:
        losses = losses * class_weights[labels]
    return losses


def cross_entropy(target_scores: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """Mean over images of -log h_y: (..., N, T) -> (...,)."""
    return focal(target_scores, labels, gamma=0.0)
