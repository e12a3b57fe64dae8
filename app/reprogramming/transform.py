"""How a target image becomes a source image: placement, tone, frame and the learned overlay.

BAR (Tsai et al. 2020, eq. 1 and 2): the image sits in a frame of the source size, X in [-1, 1];
X~ = X + P with P = tanh(W * M), and the pixel is (X~ + 1) * 127.5. Here P = amplitude * tanh(up(W)) * M,
where `up` spreads a few parameters over all pixels: fewer parameters, each of which the 8-bit pixels of an
upload can carry. Pixels are rounded once, at the end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.contracts import Images, Vector
from app.reprogramming.picture import opened, resampling, stretched

Floats = NDArray[np.float32]
Basis = Literal["grid", "dct", "pixel"]

MAX_SIZE = 2048  # pixels a side: above any source model's input
MAX_SCALE = 4.0

#: (flip, quarter turns) -> the one exchange of pixels that does both.
_TURNS: dict[tuple[bool, int], int | None] = {
    (False, 0): None,
    (False, 1): Image.Transpose.ROTATE_90,
    (False, 2): Image.Transpose.ROTATE_180,
    (False, 3): Image.Transpose.ROTATE_270,
    (True, 0): Image.Transpose.FLIP_LEFT_RIGHT,
    (True, 1): Image.Transpose.TRANSPOSE,
    (True, 2): Image.Transpose.FLIP_TOP_BOTTOM,
    (True, 3): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True, eq=False)
class View:
    """One way to show a target image to the source model. Raises ValueError for values out of range."""

    size: int  # side S of the square source image, pixels
    scale: float = 1.0  # side of the placed image, stretched to a square, / S; above 1 a part shows
    x: float = 0.5  # position in the free room, or of the part: 0 left .. 1 right
    y: float = 0.5  # 0 top .. 1 bottom
    padding: tuple[float, float, float] = (
        124.0,
        116.0,
        104.0,
    )  # grey levels; never exactly mid-grey, a cliff
    gain: float = 1.0  # image <- (image - 127.5) * gain + 127.5 + brightness
    brightness: float = 0.0  # grey levels
    turns: int = 0  # quarter turns, anticlockwise, after the flip
    flip: bool = False  # mirror left and right
    overlay: NDArray[np.float64] | None = None  # W: (g, g, 3), or (S, S, 3) for basis "pixel"
    basis: Basis = "grid"
    amplitude: float = 1.0  # of P, in units of half the pixel range
    mask: Literal["frame", "full"] = "full"  # "frame": M = 0 where the image sits

    def __post_init__(self) -> None:
        numbers = (self.scale, self.x, self.y, *self.padding, self.gain, self.brightness, self.amplitude)
        sound = (
            1 <= self.size <= MAX_SIZE
            and bool(np.isfinite(numbers).all())
            and 0 < self.scale <= MAX_SCALE
            and 0 <= self.x <= 1
            and 0 <= self.y <= 1
            and len(self.padding) == 3
            and all(0 <= level <= 255 for level in self.padding)
            and self.basis in ("grid", "dct", "pixel")
            and self.mask in ("frame", "full")
        )
        if not sound:
            raise ValueError(f"a view's value is out of range: {self.to_config()}")
        if self.overlay is not None:
            self._check_overlay(self.overlay)

    @property
    def plain(self) -> bool:
        """Whether the image is shown as it is, stretched to the source size: no program at all."""
        return self.overlay is None and self.to_config() == View(size=self.size).to_config()

    def _check_overlay(self, overlay: NDArray[np.float64]) -> None:
        cells = overlay.shape[0]
        if overlay.shape != (cells, cells, 3) or not 1 <= cells <= self.size:
            raise ValueError(f"an overlay is (g, g, 3) with g <= {self.size}, not {overlay.shape}")
        if self.basis == "pixel" and cells != self.size:
            raise ValueError(f"a pixel overlay is ({self.size}, {self.size}, 3), not {overlay.shape}")
        if not np.isfinite(overlay).all():
            raise ValueError("an overlay is finite")

    def to_config(self) -> dict[str, Any]:
        """Everything but the overlay, as JSON values."""
        return {
            "size": int(self.size),
            "scale": float(self.scale),
            "x": float(self.x),
            "y": float(self.y),
            "padding": [float(level) for level in self.padding],
            "gain": float(self.gain),
            "brightness": float(self.brightness),
            "turns": int(self.turns),
            "flip": bool(self.flip),
            "basis": str(self.basis),
            "amplitude": float(self.amplitude),
            "mask": str(self.mask),
        }

    @staticmethod
    def from_config(config: Mapping[str, Any], overlay: NDArray[np.float64] | None) -> View:
        """The inverse of `to_config`. Raises ValueError or TypeError for a config that is none."""
        known = {f.name for f in fields(View)} - {"overlay"}
        if set(config) != known:
            raise ValueError(f"a view's config names {sorted(known)}")
        if type(config["size"]) is not int or type(config["turns"]) is not int:
            raise ValueError("a view's size and turns are whole numbers")
        red, green, blue = config["padding"]
        values: dict[str, Any] = {**config, "padding": (float(red), float(green), float(blue))}
        return View(**values, overlay=overlay)

    def box(self) -> tuple[int, int, int]:
        """Top, left and side of the placed image, pixels; top and left negative where it is larger."""
        side = max(1, round(self.scale * self.size))
        room = self.size - side
        return round(self.y * room), round(self.x * room), side

    @property
    def placed(self) -> tuple[slice, slice]:
        """Rows and columns of the source image where the target image is."""
        top, left, side = self.box()
        return slice(max(0, top), top + side), slice(max(0, left), left + side)


def parameters(view: View) -> int:
    """d of the view's overlay; 0 without one."""
    return 0 if view.overlay is None else view.overlay.size


def with_parameters(view: View, w: Vector) -> View:
    """The view with overlay parameters (d,). Raises ValueError when d is not the view's."""
    if view.overlay is None or w.shape != (view.overlay.size,):
        raise ValueError(f"the view has {parameters(view)} parameters, not {w.shape}")
    return replace(view, overlay=w.reshape(view.overlay.shape).astype(np.float64))


@lru_cache(maxsize=64)
def _spread(cells: int, size: int, basis: Basis) -> Floats:
    """(S, g) matrix of `up` along one side. A DCT-II column has rms 1 over the pixels, a grid one peak 1."""
    if basis == "dct":
        angles = np.pi * (np.arange(size)[:, None] + 0.5) * np.arange(cells)[None] / size
        columns = np.cos(angles) * np.where(np.arange(cells) == 0, 1.0, np.sqrt(2.0))
    else:
        columns = resampling(cells, size)
    return columns.astype(np.float32)


def offset(view: View) -> Floats | None:
    """127.5 * P, (S, S, 3) in grey levels; None when it is zero by construction."""
    if view.overlay is None or view.amplitude == 0:
        return None
    w = view.overlay.astype(np.float32)
    if view.basis != "pixel":
        up = _spread(w.shape[0], view.size, view.basis)
        w = np.einsum("ai,ijc,bj->abc", up, w, up, optimize=True)
    p = np.tanh(w) * np.float32(127.5 * view.amplitude)
    if view.mask == "frame":
        p[view.placed] = 0
    return p


def render(view: View, images: Images) -> Images:
    """(N, h, w, 3) target images to (N, S, S, 3) source images."""
    return render_many((view,), images)


def render_many(views: Sequence[View], images: Images) -> Images:
    """(N, h, w, 3) under V views of one size to (V * N, S, S, 3), view-major.

    Views that place the image alike (the candidates of a step) share its resize and tone.
    """
    size, n = views[0].size, len(images)
    if any(view.size != size for view in views):
        raise ValueError("views rendered together have one size")
    out = np.empty((len(views), n, size, size, 3), dtype=np.uint8)
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, view in enumerate(views):
        top, left, side = view.box()
        part = (top, left) if side > size else None
        alike[side, part, view.turns % 4, view.flip, view.gain, view.brightness].append(i)
    groups = [_Group([views[i] for i in same], [out[i] for i in same]) for same in alike.values()]
    for i, image in enumerate(images):
        turned: dict[int | None, Image.Image] = {None: opened(image)}
        for group in groups:
            turn = _TURNS[group.view.flip, group.view.turns % 4]
            if turn not in turned:
                turned[turn] = turned[None].transpose(Image.Transpose(turn))
            group.render(i, turned[turn])
    return out.reshape(len(views) * n, size, size, 3)


class _Group:
    """Views of equal placement side, part, turn, flip and tone, into their (N, S, S, 3) outputs. Image by
    image: one image's floats stay in the processor's cache."""

    def __init__(self, views: Sequence[View], outs: Sequence[Images]) -> None:
        self.view = views[0]
        self._plainly: list[Images] = []  # where the toned image goes as it is
        self._shifted: list[tuple[Images, Floats]] = []  # where it is overlaid, and with what
        for view, out in zip(views, outs, strict=True):
            shift = offset(view)
            _paint_frame(view, shift, out)
            placed = out[:, *view.placed]
            if shift is None or view.mask == "frame":
                self._plainly.append(placed)
            else:
                self._shifted.append((placed, np.ascontiguousarray(shift[view.placed])))
        self._table = _tone_table(self.view.gain, self.view.brightness)
        side = min(self.view.size, self.view.box()[2])
        self._toned, self._scratch = np.empty((2, side, side, 3), dtype=np.float32)

    def render(self, i: int, turned: Image.Image) -> None:
        """Image number i, turned and flipped already."""
        resized = _resized(self.view, turned)
        if self._plainly:
            plain = resized
            if self._table is not None:
                plain = np.frombuffer(resized.tobytes().translate(self._table), np.uint8)
                plain = plain.reshape(resized.shape)
            for placed in self._plainly:
                placed[i] = plain
        if self._shifted:
            self._toned[:] = resized
            _toned(self._toned, self.view.gain, self.view.brightness)
            for placed, shift in self._shifted:
                np.add(self._toned, shift, out=self._scratch)
                placed[i] = _whole(self._scratch)  # an exact cast


def _paint_frame(view: View, shift: Floats | None, out: Images) -> None:
    """What surrounds the placed image: the same for every image."""
    top, left, side = view.box()
    if side >= view.size:
        return
    padding = np.broadcast_to(np.asarray(view.padding, dtype=np.float32), out.shape[1:])
    frame = _pixels(padding if shift is None else padding + shift)
    for y, x in (
        (slice(0, top), slice(None)),
        (slice(top + side, None), slice(None)),
        (slice(top, top + side), slice(0, left)),
        (slice(top, top + side), slice(left + side, None)),
    ):
        out[:, y, x] = frame[y, x]


def _toned(levels: Floats, gain: float, brightness: float) -> Floats:
    """Grey levels under gain and brightness, clipped to the pixel range, in place."""
    levels -= np.float32(127.5)
    levels *= np.float32(gain)
    levels += np.float32(127.5 + brightness)
    return np.clip(levels, 0, 255, out=levels)


@lru_cache(maxsize=64)
def _tone_table(gain: float, brightness: float) -> bytes | None:
    """The pixel that each of 256 levels becomes; None where all stay as they are."""
    levels = np.arange(256, dtype=np.uint8)
    toned = _pixels(_toned(levels.astype(np.float32), gain, brightness))
    return None if np.array_equal(toned, levels) else toned.tobytes()


def _resized(view: View, image: Image.Image) -> Images:
    """The image as large as it is placed, or of a larger one the part that shows."""
    top, left, side = view.box()
    if side <= view.size:
        return stretched(image, side, side)
    width, height = image.size
    across, down = width / side, height / side
    right, bottom = min(width, (view.size - left) * across), min(height, (view.size - top) * down)
    return stretched(image, view.size, view.size, (-left * across, -top * down, right, bottom))


def _pixels(values: Floats) -> Images:
    """Rounded once, half to even, and clipped to 0..255."""
    return _whole(values.copy()).astype(np.uint8)


def _whole(values: Floats) -> Floats:
    """Rounded half to even and clipped to the pixel range, in place."""
    np.rint(values, out=values)
    return np.clip(values, 0, 255, out=values)


def distinct_fraction(base: Images, candidates: Images) -> float:
    """Share of candidate images (C * N, S, S, 3), candidate-major, with a pixel unlike base (N, S, S, 3).

    Below 0.5 most probes are lost in rounding and an estimate made of them is noise.
    """
    pairs = candidates.reshape(-1, len(base), base[0].size)
    return float((pairs != base.reshape(len(base), -1)).any(axis=2).mean())
