"""Train, validation and test: stratified by class, with what belongs together kept together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from app.contracts import Split
from app.errors import BadRequest
from app.reprogramming.splits import stratified_split

SPLITS: tuple[Split, ...] = get_args(Split)
SHARES: dict[Split, float] = {"train": 0.6, "val": 0.2, "test": 0.2}


def clusters(*keys: Sequence[str | None]) -> list[int]:
    """Number of the connected component of each item: two items with a key in common belong together.

    Each of `keys` names one kind of tie (a patient, identical pixels) per item; None ties nothing.
    """
    parent = list(range(len(keys[0])))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for kind in keys:
        first: dict[str, int] = {}
        for item, key in enumerate(kind):
            if key is not None:
                parent[root(item)] = root(first.setdefault(key, item))
    return [root(item) for item in range(len(parent))]


def assign(
    labels: NDArray[np.intp],
    cluster: Sequence[int],
    wanted: Sequence[Split],
    seed: int,
    classes: Sequence[str],
) -> list[Split]:
    """A split of `wanted` (train first) for each item, in the proportions of SHARES within each class.

    labels (n,) are class numbers; items of one cluster get one split. Raises BadRequest `too_few_images` when
    a class cannot have an image in every split.
    """
    _refuse_small(labels, cluster, wanted, classes)
    rest = [SHARES[split] for split in wanted[1:]]
    parts = stratified_split(labels, [1 - sum(rest), *rest], seed, np.asarray(cluster))
    chosen: list[Split] = [wanted[0]] * len(labels)
    for split, rows in zip(wanted, parts, strict=True):
        for row in rows.tolist():
            chosen[row] = split
    return chosen


def _refuse_small(
    labels: NDArray[np.intp], cluster: Sequence[int], wanted: Sequence[Split], classes: Sequence[str]
) -> None:
    units = Counter(label for label, _ in {*zip(labels.tolist(), cluster, strict=True)})
    images = Counter(labels.tolist())
    need = len(wanted)
    for label, count in sorted(units.items()):
        if count < need:
            what = f"{images[label]} images" + (f" in {count} groups" if count < images[label] else "")
            raise BadRequest(
                f"Class {classes[label]!r} has {what}: too few for {', '.join(wanted)}.",
                code="too_few_images",
                hint=f"Send at least {need} distinct images of every class; 50 or more are better.",
            )
