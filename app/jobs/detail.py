"""Does a service make images smaller, or compress them again? Told by answers equal to the last digit.

A grey image under a pattern of single pixels with the grey as its local mean: what smooths an image while it
makes it smaller turns the pattern back into the grey, bit for bit, and the answer is that of the grey
image. JPEG keeps a strong pattern and halves the resolution of colours, which takes a pattern of colours
away. A network that is shown a pattern never answers exactly as without it; coarse patterns say whether it
answers at all. No threshold, and no wrong yes: what is not exactly lost is not called lost.

Seen: making smaller to 0.6 of the side or less (bilinear, bicubic, Lanczos; in whole numbers), JPEG of any
quality with sub-sampled colours. Milder ones are called neither yes nor no as long as they take a pattern of
one level away (to 0.8 of the side; quality 90), and are not noticed beyond.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images, Query, Scores

GREY = 100  # of the image; mid-grey is a cliff for many networks
STRONG, WEAK = 32, 1  # levels
RAMP = 2  # pixels inwards from the edge per level of the strong pattern: nothing sudden is left over
LEAST_STRONG = 16  # below, a JPEG of poor quality loses it too
COLOUR = (57, -29, 0)  # levels of red, green and blue that leave the brightness as it is
COARSE = 16  # pixels: whole blocks of any JPEG, sub-sampled colours included


def plain(side: int) -> Images:
    """(side, side, 3) of grey."""
    return np.full((side, side, 3), GREY, np.uint8)


async def detail(ask: Query, base: Scores, side: int, *, exact: bool) -> dict[str, Any]:
    """`base` (1, K): the answer to `plain(side)`. Asks three or four images more, one by one. `exact`: scores
    are not rounded; where they are, nothing can be called lost.

    Returns `seems_to_resize` and `seems_to_recompress` (None: cannot be told), and under `probes` for each
    image asked whether its answer was another than the grey one's."""
    felt: dict[str, bool] = {}
    signs, blocks = _checkers(side, 1), _checkers(side, COARSE)
    strong = min(STRONG, side // (2 * RAMP))

    async def feels(name: str, levels: NDArray[np.int_]) -> bool:
        image = (plain(side).astype(int) + levels).astype(np.uint8)
        felt[name] = not _same(await ask(image[None]), base)
        return felt[name]

    resizes: bool | None = None
    recompresses: bool | None = None
    if await feels("weak", WEAK * signs):
        resizes = False
    elif not await feels("strong", np.minimum(strong, _ramp(side))[..., None] * signs):
        if await feels("coarse", STRONG * blocks) and exact and strong >= LEAST_STRONG:
            resizes = True
        return {"seems_to_resize": resizes, "seems_to_recompress": None, "probes": felt}
    if not await feels("colour", signs * COLOUR):
        recompresses = True if await feels("coarse_colour", blocks * COLOUR) and exact else None
    elif resizes is False:
        recompresses = False
        if await feels("again", 0 * signs):  # answers vary by themselves: then no difference means anything
            resizes = recompresses = None
    return {"seems_to_resize": resizes, "seems_to_recompress": recompresses, "probes": felt}


def _checkers(side: int, block: int) -> NDArray[np.int_]:
    """(side, side, 1) of 1 and -1, by blocks."""
    y, x = np.mgrid[:side, :side] // block
    return np.where((x + y) % 2, -1, 1)[..., None]


def _ramp(side: int) -> NDArray[np.int_]:
    """(side, side): 1 at the edge, one more for every RAMP pixels inwards."""
    place = np.arange(side)
    inwards = np.minimum(place, side - 1 - place)
    return 1 + np.minimum(inwards[:, None], inwards[None]) // RAMP


def _same(some: Scores, others: Scores) -> bool:
    """Whether two answers are equal to the last digit; labels known since then are columns more."""
    width = max(some.shape[1], others.shape[1])
    wide = [np.full((1, width), np.nan) for _ in range(2)]
    wide[0][:, : some.shape[1]], wide[1][:, : others.shape[1]] = some, others
    return np.array_equal(wide[0], wide[1], equal_nan=True)
