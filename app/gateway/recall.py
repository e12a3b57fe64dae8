"""What was answered before, from the store alone: nothing is sent, counted or paid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.contracts import AnswerStore, Images, ProviderInfo
from app.gateway.account import Answers
from app.gateway.encoding import digest, key

_WINDOW = 64  # images looked up at once: bounds memory


def recall(
    connection_id: str,
    info: ProviderInfo,
    version: str,
    labels: Sequence[str],
    store: AnswerStore,
    images: Images,
) -> Answers:
    """Known scores of (N, H, W, 3) images under `labels`, a connection's column order; a row of NaN was
    never answered by this `version` of the model. Raises Unusable."""
    scores = np.full((len(images), len(labels)), np.nan)
    for start in range(0, len(images), _WINDOW):
        keys = [key(connection_id, info, version, digest(image)) for image in images[start : start + _WINDOW]]
        known = store.get(keys)
        for i, wanted in enumerate(keys, start):
            if (row := known.get(wanted)) is not None:
                scores[i, : len(row)] = row[: len(labels)]  # labels may have been appended since
    return Answers(tuple(labels), scores, cached=int((~np.isnan(scores).all(axis=1)).sum()))
