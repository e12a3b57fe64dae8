"""Data sets that need no download: handwritten digits (scanned), square counting, DNA and heartbeats
(generated)."""

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


def motifs(n: int = 600, seed: int = 0) -> str:
    """CSV `sequence,label`: 60 letters of DNA with a splice-like site in the middle, or none.

    Made by chance after the consensus of human splice sites: a donor reads MAG|GTRAGT, an acceptor a run of
    pyrimidines and CAG|G. One letter in ten of a site is wrong, and the others have GT or AG there, too.
    """
    rng = np.random.default_rng([seed])
    lines = ["sequence,label"]
    for i in range(n):
        letters = rng.choice(list("ACGT"), 60)
        label = ("donor", "acceptor", "neither")[i % 3]
        site, at = {
            "donor": ([*rng.choice(["AAG", "CAG"]), *"GT", rng.choice(["A", "G"]), *"AGT"], 27),
            "acceptor": ([*rng.choice(list("CT"), 12), *"NCAGG"], 14),
            "neither": (list(rng.choice(["GT", "AG"])), 30),
        }[label]
        for k, letter in enumerate(site):
            if letter != "N" and rng.random() > (0.1 if label != "neither" else 0):
                letters[at + k] = letter
        lines.append(f"{''.join(letters)},{label}")
    return "\n".join(lines) + "\n"


def beats(n: int = 200, seed: int = 0, length: int = 64) -> str:
    """UCR text, the label first: one heartbeat a line, 1 as it should be, -1 with its ST segment lowered and
    the T wave turned over. Sums of Gaussian waves with noise; made by chance, no patient's."""
    rng = np.random.default_rng([seed])
    time = np.linspace(0, 1, length)
    lines: list[str] = []
    for i in range(n):
        well = i % 2 == 0
        waves = [(0.12, 0.15, 0.03), (0.28, -0.2, 0.012), (0.32, 1.2, 0.015), (0.36, -0.3, 0.014)]
        waves += [(0.62, 0.35, 0.06)] if well else [(0.48, -0.25, 0.08), (0.64, -0.3, 0.06)]
        beat = rng.normal(0, 0.08, length)
        shift, strength = rng.normal(0, 0.02), rng.normal(1, 0.25, len(waves))
        for (centre, height, width), factor in zip(waves, strength, strict=True):
            beat += factor * height * np.exp(-(((time - centre - shift) / width) ** 2) / 2)
        lines.append(" ".join(["1" if well else "-1", *(f"{value:.5f}" for value in beat)]))
    return "\n".join(lines) + "\n"


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
