"""Encoded bytes to RGB pixels, pixels to a stated size, pixels to the features of the raw-pixel baselines."""

from __future__ import annotations

import io
import re
import warnings
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from app.contracts import Images
from app.errors import BadRequest, TooLarge

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue, 0 to 255
Box: TypeAlias = tuple[float, float, float, float]

WHITE: Colour = (255, 255, 255)
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
_ORIENTATION = 0x0112  # EXIF tag

# Pillow warns of an image bomb on standard error and goes on; here it is an error that `decode` translates.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def colour(text: str) -> Colour:
    """`#rrggbb`, `rrggbb` or a CSS name. Raises BadRequest."""
    try:
        found = ImageColor.getrgb(f"#{text}" if re.fullmatch("[0-9a-fA-F]{6}", text) else text)
    except ValueError:
        found = ()
    if len(found) != 3:
        raise BadRequest(
            f"{text!r} is no colour.",
            param="background",
            hint="Send six hexadecimal digits, or a name: white.",
        )
    return found[0], found[1], found[2]


def decode(data: bytes, *, max_pixels: int = 85_000_000, background: Colour = WHITE) -> Images:
    """One encoded image to uint8 (H, W, 3) RGB.

    The rule: first frame of an animation; EXIF orientation applied; grey is repeated, a palette looked up,
    alpha flattened on `background`, CMYK converted to RGB; of 16 bits the high byte is kept. Float pixels
    have no stated range and are refused. The size in the header is checked before any pixel is decoded.

    Raises TooLarge `image_too_large` and BadRequest `image_unreadable`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, max_pixels)
            image.load()
            orientation = _orientation(image)
            pixels = np.asarray(_rgb(image, background), dtype=np.uint8)
    except TooLarge:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large("The image has more pixels than can be decoded safely.", max_pixels) from error
    except Exception as error:  # a decoder fed hostile bytes may raise nearly anything
        raise BadRequest(
            "The bytes are not an image that can be read.",
            code="image_unreadable",
            hint=f"Send one of {', '.join(FORMATS)}, 8 or 16 bits a channel, not truncated.",
        ) from error
    return np.ascontiguousarray(_upright(pixels, orientation))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(f"The image is {width} x {height} pixels.", max_pixels)


def _too_large(detail: str, max_pixels: int) -> TooLarge:
    return TooLarge(
        detail,
        code="image_too_large",
        hint=f"Send at most {max_pixels:,} pixels; less than 4096 x 4096 is plenty.",
    )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata does not make the pixels unreadable
        return 1


def _upright(pixels: Images, orientation: int) -> Images:
    """EXIF orientations 2 to 8 undone; any other value is taken as upright."""
    if orientation in (5, 7):
        pixels = pixels.transpose(1, 0, 2)
    turns = {3: 2, 6: -1, 7: 2, 8: 1}.get(orientation, 0)
    if orientation in (2, 4):
        pixels = pixels[:, ::-1] if orientation == 2 else pixels[::-1]
    return np.rot90(pixels, turns)


def _rgb(image: Image.Image, background: Colour) -> Image.Image:
    if image.mode == "F":
        raise ValueError("float pixels")
    if image.mode.startswith("I"):  # 16 bits in one channel
        high = np.clip(np.asarray(image).astype(np.int64), 0, 65535) >> 8
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*background, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def fit(image: Images, height: int, width: int, box: Box | None = None) -> Images:
    """uint8 (H, W, 3), or a box of it (left, top, right, bottom in pixels), stretched to (height, width, 3):
    bilinear, antialiased, deterministic."""
    if box is None and image.shape[:2] == (height, width):
        return image
    return stretched(opened(image), height, width, box)


def opened(image: Images) -> Image.Image:
    """uint8 (H, W, 3), as Pillow holds it."""
    return Image.fromarray(image)


def stretched(image: Image.Image, height: int, width: int, box: Box | None = None) -> Images:
    """`fit` of an opened image."""
    if box is None and image.size == (width, height):
        return np.asarray(image)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box))


@lru_cache(maxsize=64)
def resampling(n: int, m: int) -> NDArray[np.float64]:
    """(m, n) weights of a bilinear resize of n samples to m, antialiased. Rows sum to 1."""
    step = n / m
    support = max(1.0, step)
    centres = (np.arange(m) + 0.5) * step - 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(n)[None] - centres[:, None]) / support)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


def features(images: Images, side: int = 16, colour_side: int = 4) -> NDArray[np.float64]:
    """(N, h, w, 3) to (N, F) compact pixel features in [-1, 1]: grey at `side` squared, then two colour
    differences (red - green, blue - green) at `colour_side` squared. Each row depends on its image alone."""
    n, height, width, _ = images.shape
    grey = np.empty((n, side * side))
    colour = np.empty((n, 2 * colour_side * colour_side))
    luma = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    rows, columns = resampling(height, side), resampling(width, side)
    few_rows, few_columns = resampling(side, colour_side), resampling(side, colour_side)
    for i, image in enumerate(images):
        small = rows @ image.astype(np.float64).transpose(2, 0, 1) @ columns.T  # (3, side, side)
        grey[i] = (luma @ small.reshape(3, -1)) / 127.5 - 1.0
        differences = few_rows @ (small[[0, 2]] - small[1]) @ few_columns.T
        colour[i] = differences.reshape(-1) / 255.0
    return np.concatenate([grey, colour], axis=1)
