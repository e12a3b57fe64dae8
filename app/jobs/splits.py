"""Train, validation and test: stratified by class, with what belongs together kept together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from app.contracts import Split
from app.errors import BadRequest

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
    """A split of `wanted` for each item, in the proportions of SHARES within each class.

    labels (n,) are class numbers; items of one cluster get one split. Clusters are placed from large to
    small, equals in random order, each where its classes are still missing most. Raises BadRequest
    `too_few_images` when a class cannot have an image in every split.
    """
    _refuse_small(labels, cluster, wanted, classes)
    _, inverse = np.unique(np.asarray(cluster), return_inverse=True)
    content = np.zeros((inverse.max() + 1, len(classes)), np.intp)  # (clusters, T)
    np.add.at(content, (inverse, labels), 1)
    totals = np.maximum(content.sum(axis=0), 1)
    missing = _targets(content.sum(axis=0), wanted).astype(float)  # (splits, T)
    empty = np.ones(missing.shape, bool)
    waiting = (content > 0).sum(axis=0)  # clusters that hold the class and have no split yet
    order = np.random.default_rng([seed, len(labels)]).permutation(len(content))
    order = order[np.argsort(-content[order].sum(axis=1), kind="stable")]
    place = [0] * len(content)
    for c in order.tolist():
        held = content[c] > 0
        urgent = held & (waiting <= empty.sum(axis=0))  # the last chance for a split without this class
        open_to = (empty & urgent).any(axis=1) if (empty & urgent).any() else np.ones(len(wanted), bool)
        need = (missing * (content[c] / totals)).sum(axis=1)
        chosen = int(np.argmax(np.where(open_to, need, -np.inf)))
        place[c] = chosen
        missing[chosen] -= content[c]
        empty[chosen] &= ~held
        waiting -= held
    return [wanted[place[i]] for i in inverse.tolist()]


def _targets(counts: NDArray[np.intp], wanted: Sequence[Split]) -> NDArray[np.intp]:
    """(splits, T) images per class; every split but the first gets at least one."""
    shares = np.array([SHARES[split] for split in wanted])
    if len(wanted) < len(SPLITS):  # carving one split out of another: 20 % of what is there
        shares[0] = 1 - shares[1:].sum()
    targets = np.maximum(np.rint(shares[:, None] * counts), 1).astype(np.intp)
    targets[0] = counts - targets[1:].sum(axis=0)
    return targets


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
