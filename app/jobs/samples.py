"""Data sets that need no download: handwritten digits (scanned) and square counting (generated)."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from app.contracts import Images, Labels

EPOCH = (1980, 1, 1, 0, 0, 0)  # the same pictures make the same zip
GRID = 4  # square counting: positions a side
MOST_SQUARES = 10


@dataclass(frozen=True)
class Sample:
    """Labelled images without splits: uint8 (n, h, w, 3), class numbers (n,), class names."""

    images: Images
    labels: Labels
    classes: tuple[str, ...]


def digits(n: int | None = None, seed: int = 0) -> Sample:
    """1,797 scans of handwritten digits at 8 x 8 (Alpaydin and Kaynak 1998, CC BY 4.0), or `n` of them drawn
    without replacement."""
    pixels, target = load_digits(return_X_y=True)  # (1797, 64) in 0..16
    grey = np.rint(np.asarray(pixels, np.float64) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    labels = np.asarray(target, np.intp)
    if n is not None:
        chosen = np.sort(np.random.default_rng([seed]).permutation(len(grey))[:n])
        grey, labels = grey[chosen], labels[chosen]
    return Sample(_rgb(grey), labels, tuple("0123456789"))


def squares(n: int, seed: int, side: int = 36) -> Sample:
    """White squares on black, 1 to 10 of them: the class is how many (Elsayed et al. 2019, section 4.1).

    Each lies in its own cell of a 4 x 4 grid, moved within it by chance, so that few squares still make many
    different images. No image comes twice. Raises ValueError when `n` different ones do not exist.
    """
    cell = side // GRID
    if cell < 3:
        raise ValueError("side must be at least 12 pixels")
    size = max(1, cell // 2)
    room = cell - size - 1  # a black line stays between neighbours
    if n > MOST_SQUARES * GRID**2 * (room + 1) ** 2 // 2:
        raise ValueError(f"{side} pixels have too few different images for n = {n}")
    rng = np.random.default_rng([seed])
    images, labels = np.zeros((n, side, side), np.uint8), np.arange(n) % MOST_SQUARES
    seen: set[bytes] = set()
    for i in range(n):
        while True:
            images[i] = 0
            for at in rng.choice(GRID**2, size=int(labels[i]) + 1, replace=False).tolist():
                down, right = rng.integers(0, room + 1, size=2).tolist()
                top, left = at // GRID * cell + down, at % GRID * cell + right
                images[i, top : top + size, left : left + size] = 255
            if (key := images[i].tobytes()) not in seen:
                seen.add(key)
                break
    names = tuple(str(count) for count in range(1, MOST_SQUARES + 1))
    return Sample(_rgb(images), labels.astype(np.intp), names)


def write_zip(path: Path, sample: Sample) -> None:
    """A zip with a folder of PNG files per class: the shape of upload that needs no explaining."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i, (image, label) in enumerate(zip(sample.images, sample.labels.tolist(), strict=True)):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            archive.writestr(zipfile.ZipInfo(f"{sample.classes[label]}/{i:05d}.png", EPOCH), png.getvalue())


def write_digits_zip(path: Path, n: int | None = None, seed: int = 0) -> None:
    """`digits` as an upload."""
    write_zip(path, digits(n, seed))


def write_squares_zip(path: Path, n: int = 1000, seed: int = 0, side: int = 36) -> None:
    """`squares` as an upload."""
    write_zip(path, squares(n, seed, side))


def _rgb(grey: Images) -> Images:
    """(n, h, w) to (n, h, w, 3)."""
    return np.repeat(grey[..., None], 3, axis=3)
