"""Bytes to pixels, as a provider's front end does it."""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Images = NDArray[np.uint8]
Fault = Literal["empty", "argument", "url", "format", "broken", "bytes", "dimensions"]


class BadImageError(Exception):
    """This image will never be scored; `fault` says which rule it breaks."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault: Fault = fault
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """What a provider takes: formats by Pillow's names, bytes, pixels, longest side, length over breadth."""

    formats: tuple[str, ...]
    bytes: int
    pixels: int
    side: int
    aspect: float


def decode(data: bytes, limits: Limits) -> Images:
    """Encoded image -> uint8 (H, W, 3); alpha is dropped, the first frame taken. Raises BadImageError."""
    if not data:
        raise BadImageError("empty", "no image bytes")
    if len(data) > limits.bytes:
        raise BadImageError("bytes", f"{len(data)} bytes, at most {limits.bytes}")
    try:
        with Image.open(BytesIO(data), formats=limits.formats) as image:
            _check_shape(image.width, image.height, limits)
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            return np.asarray(opaque.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("dimensions", "too many pixels") from error
    except UnidentifiedImageError as error:
        raise BadImageError("format", "not an image of a supported format") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise BadImageError("broken", "the image data cannot be decoded") from error


def _check_shape(width: int, height: int, limits: Limits) -> None:
    longest, shortest = max(width, height), min(width, height)
    if width * height > limits.pixels or longest > limits.side or longest > limits.aspect * shortest:
        raise BadImageError("dimensions", f"{width}x{height} pixels are over the limit")


def resized(image: Images, side: int) -> Images:
    """uint8 (H, W, 3) -> uint8 (side, side, 3), bilinear; the same array where nothing changes."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def recompressed(image: Images, quality: int) -> Images:
    """The image after a JPEG round trip at `quality` 1..100."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def encoded(image: Images) -> bytes:
    """The image as a lossless file."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()
