"""The test of a connection: what one billable query tells of a source model, and what a few more would."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from app.contracts import Images, ProviderInfo, ScoreKind, Scores
from app.errors import BadRequest
from app.gateway.query import Gateway
from app.jobs.detail import detail, plain

FULL_DECIMALS = 6  # what float32 scores have, printed in full


async def probe(
    gateway: Gateway, payer: str | None = None, *, probes: bool = False, repeats: int = 0
) -> dict[str, Any]:
    """One billable query of an image nobody asked before: labels, kind of scores, latency, version, clock.

    `probes`: three or four queries more, see `app.jobs.detail`. `repeats`: the same image so many times
    again, past the cache. Raises what the gateway raises; BadRequest for a refused image.
    """
    info = gateway.account.provider.info
    side = max(info.input_size, info.min_side)
    image = plain(side)
    listed = bool(await gateway.discover())
    started = time.perf_counter()
    asked = _Asker(gateway, payer)
    [scores] = await asked(image[None])
    latency = time.perf_counter() - started
    found = _facts(scores, info, len(gateway.model.labels))
    if probes:
        found |= await detail(asked, scores[None], side, exact=found["decimals"] is None)
    if repeats:
        again = await asked(np.repeat(image[None], repeats, axis=0))
        found["repeats"] = {"queries": repeats, "spread": _difference(again[:, : len(scores)], scores)}
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
    total = float(seen.sum())
    if seen.max() > 1 or abs(total - 100) < 0.1:  # of a thousand labels none may have as much as one percent
        return "percent"
    return "probability" if abs(total - 1) < 1e-3 else "independent"


def decimals(scores: Scores) -> int | None:
    """Decimals that scores (K,) are given with; None for full precision: the smallest change of an image that
    can be seen in them is what rounding leaves."""
    longest = 0
    for value in scores:
        text = np.format_float_positional(np.float32(value), unique=True, trim="-")
        longest = max(longest, len(text.partition(".")[2]))
    return longest if longest < FULL_DECIMALS else None


def _difference(some: Scores, plain: Scores) -> float:
    """The largest change of any score; 0 where none is in both."""
    change = np.abs(some - plain)
    return float(np.nanmax(change)) if np.isfinite(change).any() else 0.0
