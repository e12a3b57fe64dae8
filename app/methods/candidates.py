"""The family of programs that searching methods draw from (V2S, Yang et al. 2021, by chance)."""

from __future__ import annotations

import numpy as np

from app.reprogramming.transform import View

GAINS = (-1.0, -0.6, 0.6, 1.0)
CELLS = (2, 4, 8)  # cells a side of the colour overlay
AMPLITUDES = (0.0, 0.3, 0.6, 1.0)
LEAST_SCALE = 0.25
BRIGHTNESS = 30.0  # grey levels either way


def candidate(size: int, seed: int, index: int) -> View:
    """Candidate `index` of a seed: number 0 is the plain view, the others are random programs."""
    if index == 0:
        return View(size=size)
    rng = np.random.default_rng([seed, index, 0x5EED])
    cells, amplitude = min(size, int(rng.choice(CELLS))), float(rng.choice(AMPLITUDES))
    red, green, blue = rng.uniform(0, 255, 3).tolist()
    return View(
        size=size,
        scale=float(rng.uniform(LEAST_SCALE, 1)),
        x=float(rng.uniform()),
        y=float(rng.uniform()),
        padding=(red, green, blue),
        gain=float(rng.choice(GAINS)),
        brightness=float(rng.uniform(-BRIGHTNESS, BRIGHTNESS)),
        overlay=rng.standard_normal((cells, cells, 3)) if amplitude else None,
        amplitude=amplitude,
    )


def candidates(size: int, seed: int, indices: list[int]) -> tuple[View, ...]:
    """Several of them."""
    return tuple(candidate(size, seed, index) for index in indices)
