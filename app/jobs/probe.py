"""The test of a connection: what one billable query tells of a source model, and what a few more would."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from app.contracts import Images, ProviderInfo, ScoreKind, Scores
from app.errors import BadRequest
from app.gateway.query import Gateway

BLOCK = 16  # pixels: a block of one colour is whole blocks of any JPEG, sub-sampled colours included
STRONG, WEAK = 48, 1  # levels of the two probes
SEED = 4  # of the picture: always the same, so that two tests of one service can be laid side by side
FELT = 0.005  # of the range of scores: less than this is no answer to a strong change
FULL_DECIMALS = 6  # what float32 scores have, printed in full
REACH = {"percent": 100.0, "severity": 6.0, "likelihood": 4.0, "logit": 10.0}  # of a kind's scores


async def probe(
    gateway: Gateway, payer: str | None = None, *, probes: bool = False, repeats: int = 0
) -> dict[str, Any]:
    """One billable query of an image nobody asked before: labels, kind of scores, latency, version, clock.

    `probes`: two queries more, the image under a pattern of single pixels, strong and weak: a service that
    makes images smaller loses both, one that compresses them again loses the weak one. `repeats`: the same
    image so many times again, past the cache. Raises what the gateway raises; BadRequest for a refused image.
    """
    info = gateway.account.provider.info
    image = _blocks(max(info.input_size, info.min_side))
    listed = bool(await gateway.discover())
    started = time.perf_counter()
    asked = _Asker(gateway, payer)
    [scores] = await asked(image[None])
    latency = time.perf_counter() - started
    found = _facts(scores, info, len(gateway.model.labels))
    if probes:
        changed = np.stack([_patterned(image, STRONG), _patterned(image, WEAK)])
        found |= _reached(scores, await asked(changed), info, found["decimals"])
    if repeats:
        again = await asked(np.repeat(image[None], repeats, axis=0))
        found["repeats"] = {"queries": repeats, "spread": _difference(again, scores)}
    ahead = gateway.clock_ahead
    return {
        "labels": list(gateway.model.labels),
        "labels_listed": listed,
        "latency_ms": round(latency * 1000, 1),
        "model_version": gateway.model.version or None,
        "clock_skew_seconds": None if ahead is None else round(ahead),
        "score_kind": info.score_kind,
        **found,
        "queries": asked.sent,
        "cost_micros": asked.sent * gateway.account.price.micros,
    }


class _Asker:
    """Asks past the cache and counts what went over the wire."""

    def __init__(self, gateway: Gateway, payer: str | None) -> None:
        self._gateway, self._payer, self.sent = gateway, payer, 0

    async def __call__(self, images: Images) -> Scores:
        answers = await self._gateway.ask(images, payer=self._payer, purpose="connection_test", fresh=True)
        self.sent += answers.sent
        for error in answers.rejected.values():
            raise BadRequest(
                f"The provider refused the image: {error.detail}", code="image_rejected", hint=error.hint
            )
        return answers.scores


def _facts(scores: Scores, info: ProviderInfo, known: int) -> dict[str, Any]:
    """What one answer (K,) shows: kind of scores, their decimals, and whether labels were left out."""
    seen = scores[np.isfinite(scores)]
    kind = measured_kind(scores, info.score_kind)
    cut = len(seen) < known or (info.score_kind == "probability" and 0 < float(seen.sum()) < 1 - 1e-3)
    return {
        "score_kind_measured": kind,
        "labels_answered": len(seen),
        "truncated": bool(cut),
        "decimals": decimals(seen),
    }


def measured_kind(scores: Scores, stated: ScoreKind) -> ScoreKind | None:
    """What one answer (K,) looks like; None when it is empty. Ordinal codes and hard labels cannot be told
    from numbers, and a softmax cut to its best few looks independent."""
    seen = scores[np.isfinite(scores)]
    if not seen.size or stated in ("severity", "likelihood", "label"):
        return stated if seen.size else None
    if seen.min() < 0 or seen.max() > 100:
        return "logit"
    if seen.max() > 1:
        return "percent"
    return "probability" if abs(float(seen.sum()) - 1) < 1e-3 else "independent"


def decimals(scores: Scores) -> int | None:
    """Decimals that scores (K,) are given with; None for full precision: the smallest change of an image that
    can be seen in them is what rounding leaves."""
    longest = 0
    for value in scores:
        text = np.format_float_positional(np.float32(value), unique=True, trim="-")
        longest = max(longest, len(text.partition(".")[2]))
    return longest if longest < FULL_DECIMALS else None


def _blocks(side: int) -> Images:
    """(side, side, 3): blocks of chance colours, far enough from black and white for either pattern."""
    cells = -(-side // BLOCK)
    colours = np.random.default_rng(SEED).integers(64, 192, (cells, cells, 3), dtype=np.uint8)
    return np.repeat(np.repeat(colours, BLOCK, axis=0), BLOCK, axis=1)[:side, :side]


def _patterned(image: Images, level: int) -> Images:
    """The image under a grey checkerboard of single pixels, plus and minus `level` in the middle and fading
    to the edges, which resizing treats otherwise. Its local mean stays; a JPEG below quality 90 rounds a weak
    one away (its only frequency is the highest)."""
    height, width = image.shape[:2]
    fade = np.outer(np.hanning(height), np.hanning(width)) if level > 1 else np.ones((height, width))
    y, x = np.mgrid[:height, :width]
    signed = np.rint(level * fade) * np.where((x + y) % 2, 1, -1)
    return (image + signed[..., None]).astype(np.uint8)


def _reached(plain: Scores, changed: Scores, info: ProviderInfo, rounded: int | None) -> dict[str, Any]:
    """Whether the patterns reached the model; `changed` (2, K): under the strong one and the weak one. None:
    these answers cannot tell."""
    reach = REACH.get(info.score_kind, 1.0)
    strong, weak = _difference(changed[:1], plain) / reach, _difference(changed[1:], plain) / reach
    coarse = rounded is not None or info.score_kind in ("severity", "likelihood", "label")
    resizes = None if coarse and strong == 0 else strong < FELT
    return {
        "seems_to_resize": resizes,
        "seems_to_recompress": None if coarse or resizes is not False else weak == 0,
        "probes": {"strong": strong * reach, "weak": weak * reach},
    }


def _difference(some: Scores, plain: Scores) -> float:
    """The largest change of any score; 0 where none is in both."""
    change = np.abs(some - plain)
    return float(np.nanmax(change)) if np.isfinite(change).any() else 0.0
