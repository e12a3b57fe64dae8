"""Pictures that look the same: a difference hash finds them, thumbnails confirm it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.jobs.pack import THUMBNAIL

BITS_APART = 3  # of 64; four words of 16 bits: two such hashes have at least one in common
GREYS_APART = 3.0, 16.0  # mean and largest difference of two thumbnails, each about its own mean
MOST_COMPARISONS = 40_000_000  # bounds the time on data of one flat motif, about 2 s


def near_pairs(thumbnails: Sequence[bytes]) -> tuple[list[tuple[int, int]], bool]:
    """Pairs (i, j), i < j, of pictures that are nearly the same, and whether all were compared.

    A difference hash says which neighbour is the brighter at 8 x 8 places of a 9 x 8 grey thumbnail
    (Krawetz 2013): it survives another size, compression and brightness, not a crop or a turn. Flat
    pictures, whose hash is noise, are told apart by their thumbnails.
    """
    if len(thumbnails) < 2:
        return [], True
    width, height = THUMBNAIL
    grey = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, height, width).astype(np.int16)
    bits = np.packbits((grey[:, :, 1:] > grey[:, :, :-1]).reshape(len(grey), -1), axis=1)
    words = np.ascontiguousarray(bits).view(np.uint16)  # (n, 4)
    hashes = np.ascontiguousarray(bits).view(np.uint64)[:, 0]
    flat = grey.reshape(len(grey), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    pairs: set[tuple[int, int]] = set()
    left = MOST_COMPARISONS
    for word in words.T:
        for bucket in _buckets(word):
            left -= len(bucket) ** 2 // 2
            if left < 0:
                return sorted(pairs), False
            pairs |= _alike(bucket, hashes, flat)
    return sorted(pairs), True


def _buckets(word: NDArray[np.uint16]) -> Iterator[NDArray[np.intp]]:
    """Rows of equal value, smallest sets first, sets of one left out."""
    order = np.argsort(word, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(word[order])) + 1)
    yield from sorted((part for part in parts if len(part) > 1), key=len)


def _alike(
    rows: NDArray[np.intp], hashes: NDArray[np.uint64], flat: NDArray[np.float32]
) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for k, i in enumerate(rows[:-1].tolist()):
        others = rows[k + 1 :]
        others = others[np.bitwise_count(hashes[others] ^ hashes[i]) <= BITS_APART]
        if len(others):
            apart = np.abs(flat[others] - flat[i])
            mean, most = GREYS_APART
            others = others[(apart.mean(axis=1) <= mean) & (apart.max(axis=1) <= most)]
            found |= {(min(i, j), max(i, j)) for j in others.tolist()}
    return found


def gather(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Pairs as sets of rows that hang together, largest first."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        parent[root(i)] = root(j)
    sets: dict[int, list[int]] = defaultdict(list)
    for i in sorted(parent):
        sets[root(i)].append(i)
    return sorted(sets.values(), key=lambda found: (-len(found), found))
