"""Draws docs/pictures/ with the product's own code: `python scripts/make_pictures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from app.contracts import Images
from app.jobs import samples
from app.reprogramming.transform import View, render

OUT = Path(__file__).parents[1] / "docs" / "pictures"
SIZE, GAP = 160, 8


def views() -> tuple[View, ...]:
    """Four ways to show one image: as it is, placed, turned and darkened, with a visual prompt round it."""
    prompt = np.random.default_rng([7]).normal(0.0, 0.8, (16, 16, 3))
    return (
        View(size=SIZE),
        View(size=SIZE, scale=0.5, x=0.2, y=0.8),
        View(size=SIZE, scale=0.8, turns=1, gain=0.6, brightness=-30.0, padding=(30.0, 60.0, 120.0)),
        View(size=SIZE, scale=0.55, overlay=prompt, mask="frame"),
    )


def beside(images: Images) -> Images:
    """(N, S, S, 3) as one row on white."""
    row = np.full((images.shape[1], len(images) * (SIZE + GAP) - GAP, 3), 255, np.uint8)
    for n, image in enumerate(images):
        row[:, n * (SIZE + GAP) : n * (SIZE + GAP) + SIZE] = image
    return row


def main() -> None:
    OUT.mkdir(exist_ok=True)
    sample = samples.digits(40, seed=3)
    shown = np.concatenate([render(view, sample.images[:1]) for view in views()])
    Image.fromarray(beside(shown)).save(OUT / "views.png", optimize=True)
    squares = samples.squares(8, seed=1)
    plain = np.concatenate([render(View(size=SIZE), squares.images[n : n + 1]) for n in (0, 2, 4, 6)])
    Image.fromarray(beside(plain)).save(OUT / "squares.png", optimize=True)


if __name__ == "__main__":
    main()
