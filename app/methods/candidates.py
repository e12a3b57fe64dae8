"""The family of programs that searching methods draw from, and the neighbours of one of them.

A candidate is named by a path of numbers: the first draws it at random (0 is the plain view), each further
one moves it a little. The same seed and path are the same program, so a checkpoint holds names alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from app.reprogramming.transform import MAX_SCALE, View

Path: TypeAlias = Sequence[int]

PLAIN: Path = (0,)
ZOOMED = 1_000_000  # numbers from here on draw a part of the image, as large as the source image
GAINS = (-1.0, -0.6, 0.6, 1.0)
CELLS = (2, 4, 8)  # cells a side of the colour overlay
AMPLITUDES = (0.0, 0.3, 0.6, 1.0)
LEAST_SCALE = 0.25
LEAST_PART = 0.35  # side of a part / side of the image
BRIGHTNESS = 30.0  # grey levels either way

# How far a neighbour lies: standard deviations.
NEAR_SCALE, NEAR_PLACE, NEAR_OVERLAY = 0.06, 0.09, 0.4
NEAR_GREY, NEAR_BRIGHTNESS = 18.0, 7.5  # grey levels
NEAR_GAIN = 0.1  # of its logarithm
FIRST_AMPLITUDES = (0.15, 0.3)  # of an overlay that the program did not have


def candidates(size: int, seed: int, paths: Iterable[Path]) -> tuple[View, ...]:
    """The programs of these names."""
    return tuple(_candidate(size, seed, path) for path in paths)


def draws(count: int, zoomed: bool) -> list[list[int]]:
    """Names of candidates at random, the plain view first; with `zoomed` every other one shows a part."""
    return [[i + ZOOMED if zoomed and i and i % 2 == 0 else i] for i in range(count)]


def _candidate(size: int, seed: int, path: Path) -> View:
    view = View(size=size) if path[0] == 0 else _drawn(size, np.random.default_rng([seed, path[0], 0x5EED]))
    if path[0] >= ZOOMED:
        part = np.random.default_rng([seed, path[0], 0xF00D]).uniform(LEAST_PART, 1)
        view = replace(view, scale=1 / float(part))
    for end in range(2, len(path) + 1):
        view = _neighbour(view, np.random.default_rng([seed, *path[:end], 0xBEAD]))
    return view


def _drawn(size: int, rng: np.random.Generator) -> View:
    cells, amplitude = min(size, int(rng.choice(CELLS))), float(rng.choice(AMPLITUDES))
    turns, flip = (int(rng.integers(4)), bool(rng.integers(2))) if rng.integers(2) else (0, False)
    return View(
        size=size,
        scale=float(rng.uniform(LEAST_SCALE, 1)),
        x=float(rng.uniform()),
        y=float(rng.uniform()),
        padding=_colour(rng.uniform(0, 255, 3)),
        gain=float(rng.choice(GAINS)),
        brightness=float(rng.uniform(-BRIGHTNESS, BRIGHTNESS)),
        turns=turns,
        flip=flip,
        overlay=rng.standard_normal((cells, cells, 3)) if amplitude else None,
        amplitude=amplitude,
    )


def _neighbour(view: View, rng: np.random.Generator) -> View:
    """All of the view's numbers moved a little; it gets a faint overlay if it had none."""
    step = rng.standard_normal(3) * (NEAR_SCALE, NEAR_PLACE, NEAR_PLACE)
    scale, x, y = np.array([view.scale, view.x, view.y]) + step
    overlay, amplitude = view.overlay, view.amplitude
    if overlay is None:
        cells = min(view.size, 4)
        overlay, amplitude = rng.standard_normal((cells, cells, 3)), float(rng.choice(FIRST_AMPLITUDES))
    return replace(
        view,
        scale=float(np.clip(scale, min(LEAST_SCALE, view.scale), largest(view))),
        x=float(np.clip(x, 0, 1)),
        y=float(np.clip(y, 0, 1)),
        padding=_colour(np.array(view.padding) + NEAR_GREY * rng.standard_normal(3)),
        gain=view.gain * float(np.exp(NEAR_GAIN * rng.standard_normal())),
        brightness=view.brightness + NEAR_BRIGHTNESS * float(rng.standard_normal()),
        overlay=overlay + NEAR_OVERLAY * rng.standard_normal(overlay.shape),
        amplitude=amplitude,
    )


def largest(view: View) -> float:
    """How far a view's scale may move up: one that shows the whole image keeps doing so."""
    return 1.0 if view.scale <= 1 else MAX_SCALE


def _colour(levels: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float, float]:
    red, green, blue = np.clip(levels, 0, 255).tolist()
    return red, green, blue
