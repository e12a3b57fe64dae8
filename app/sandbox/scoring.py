"""From one image's bytes to its scores, with what the fault switches do to both."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.sandbox.classifiers import Name, Scores, Size, load
from app.sandbox.faults import Faults, Luck
from app.sandbox.images import BadImageError, Limits, decode, recompressed, resized

NEW_VERSION_TEMPER = 0.9  # a flipped version is a little less sure of everything


@dataclass(frozen=True)
class Scored:
    """One image's outcome: its digest and float64 (K,) scores."""

    digest: bytes
    values: Scores


@dataclass(frozen=True)
class Failed:
    """One image without scores: broken for good (`bad`), or by chance (`bad` is None)."""

    bad: BadImageError | None


Outcome = Scored | Failed


def score(
    fetch: Callable[[], bytes], limits: Limits, name: Name, size: Size, generation: int, luck: Luck
) -> Outcome:
    """Fetch, decode and score one image; runs in a worker thread and raises nothing about the image."""
    try:
        data = fetch()
        digest = hashlib.sha256(data).digest()
        if digest.hex() in luck.faults.poison:
            raise BadImageError("broken", "the image cannot be processed")
        pixels = decode(data, limits)
        if luck.strikes("per_input_failure", luck.faults.per_input_failure_rate, digest):
            return Failed(None)
        faults = luck.faults
        if faults.server_resize is not None:
            pixels = resized(pixels, faults.server_resize)
        if faults.jpeg_recompress_q is not None:
            pixels = recompressed(pixels, faults.jpeg_recompress_q)
        values = load(name, size).scores(pixels[None])[0]
        return Scored(digest, _disturbed(values, generation, faults, luck, digest))
    except BadImageError as error:
        return Failed(error)


def _disturbed(values: Scores, generation: int, faults: Faults, luck: Luck, digest: bytes) -> Scores:
    """Scores (K,) after a version change, noise and rounding; the same array where all are off."""
    if generation or faults.score_noise:
        logs = np.log(np.maximum(values, 1e-30)) * (NEW_VERSION_TEMPER if generation else 1.0)
        rng = np.random.default_rng(luck.stream("noise", digest).getrandbits(64))
        logs += faults.score_noise * rng.standard_normal(len(logs))
        powers = np.exp(logs - logs.max())
        values = (powers / powers.sum()).astype(np.float32).astype(np.float64)
    if faults.quantise_decimals is not None:
        values = np.round(values, faults.quantise_decimals)
    return values


def ranked(values: Scores, faults: Faults) -> list[int]:
    """Label numbers by falling score, cut to the switches' top k and least value."""
    order = np.argsort(-values, kind="stable")[: faults.top_k]
    return [int(label) for label in order if values[label] >= faults.min_value]


def default_workers() -> int:
    """Threads for scoring: one for each processor."""
    return os.cpu_count() or 1
