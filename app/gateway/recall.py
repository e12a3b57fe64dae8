"""What was answered before, from the store alone: nothing is sent, counted or paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.contracts import AnswerStore, Images, ProviderInfo
from app.gateway.account import Answers
from app.gateway.encoding import digest, encode, file_digest, key

_WINDOW = 64  # images looked up at once: bounds memory


def former(
    store: AnswerStore,
    connection_id: str,
    info: ProviderInfo,
    version: str,
    images: Mapping[bytes, NDArray[np.uint8]],
    *,
    compressed: bool = False,
) -> dict[bytes, NDArray[np.float32]]:
    """What an older release bought, which kept answers by the file it sent: stored rows of those of `images`,
    each (H, W, 3) by its key of today. Raises Unusable."""
    if not images or not store.by_file:
        return {}
    files = [encode(image[None], compressed=compressed)[0] for image in images.values()]
    keys = [key(connection_id, info, version, file_digest(file)) for file in files]
    found = store.get(keys)
    return {today: found[its] for today, its in zip(images, keys, strict=True) if its in found}


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
        window = images[start : start + _WINDOW]
        keys = [key(connection_id, info, version, digest(image)) for image in window]
        found = dict(store.get(keys))
        missing = {its: image for its, image in zip(keys, window, strict=True) if its not in found}
        found |= former(store, connection_id, info, version, missing)
        for i, wanted in enumerate(keys, start):
            if (row := found.get(wanted)) is not None:
                scores[i, : len(row)] = row[: len(labels)]  # labels may have been appended since
    return Answers(tuple(labels), scores, cached=int((~np.isnan(scores).all(axis=1)).sum()))
