"""Bytes to pixels by the stated rule, pixels to size, pixels to features."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from app.errors import BadRequest, TooLarge
from app.reprogramming.picture import decode, features, fit, resampling

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds a few bytes of them."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    data = chunk(b"IDAT", zlib.compress(b"\0" * 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + data


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_come_back_exactly(kind: str) -> None:
    out = decode(encoded(Image.fromarray(RGB), kind))
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, RGB)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_other_formats_come_back_nearly(kind: str) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 32)[:, None, None], (32, 24, 3)).astype(np.uint8)
    out = decode(encoded(Image.fromarray(smooth), kind))
    assert out.shape == (32, 24, 3)
    assert np.abs(out.astype(int) - smooth).mean() < 3


def test_grey_and_one_bit_are_repeated() -> None:
    grey = RGB[..., 0]
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey))), np.repeat(grey[..., None], 3, 2))
    bits = decode(encoded(Image.fromarray(grey > 127)))
    np.testing.assert_array_equal(bits[..., 1], np.where(grey > 127, 255, 0))


def test_alpha_is_flattened_on_white() -> None:
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[0, 0] = (10, 20, 30, 0)
    rgba[1, 1] = (0, 0, 0, 51)  # a fifth of black over white
    out = decode(encoded(Image.fromarray(rgba)))
    assert out[0, 0].tolist() == [255, 255, 255]
    assert out[1, 1].tolist() == [204, 204, 204]
    np.testing.assert_array_equal(out[2:], RGB[2:])
    grey = np.zeros((1, 1, 2), np.uint8)  # grey with alpha, fully transparent
    assert decode(encoded(Image.fromarray(grey, "LA")))[0, 0].tolist() == [255, 255, 255]


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image))[0].tolist() == [[200, 10, 20], [0, 0, 255]]
    assert decode(encoded(image, transparency=1))[0].tolist() == [[200, 10, 20], [255, 255, 255]]


def test_sixteen_bits_keep_the_high_byte() -> None:
    deep = np.array([[0, 255, 256, 65535, 0x1234]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(deep), kind))[0, :, 0].tolist() == [0, 0, 1, 255, 0x12]


def test_cmyk_is_converted() -> None:
    out = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert out[4, 4, 0] > 240
    assert out[4, 4, 1:].max() < 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    upright = np.zeros((48, 32, 3), np.uint8)
    upright[:24, :16], upright[:24, 16:], upright[24:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {  # what a camera that was held so would have written
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif))
    assert out.shape == upright.shape
    assert np.abs(out.astype(int) - upright).mean() < 12


def test_only_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    out = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert out[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("side", [60_000, 9_400])  # beyond Pillow's limit, and in the range where it warns
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with warnings.catch_warnings(record=True) as leaked, pytest.raises(TooLarge) as caught:
        decode(png_header(side, side))
    assert caught.value.code == "image_too_large"
    assert caught.value.hint
    assert not leaked


def test_a_bomb_takes_no_memory() -> None:
    code = (
        "import resource, sys\nfrom app.errors import TooLarge\n"
        "from app.reprogramming.picture import decode\n"
        "data = sys.stdin.buffer.read(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode(data)\n"
        "except TooLarge: pass\n"
        "else: raise SystemExit('decoded')\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32_000\n"
    )
    subprocess.run([sys.executable, "-c", code], input=png_header(60_000, 60_000), check=True)


def test_the_limit_is_the_callers() -> None:
    data = encoded(Image.fromarray(RGB))
    assert decode(data, max_pixels=35).shape == (7, 5, 3)
    with pytest.raises(TooLarge):
        decode(data, max_pixels=34)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        png_header(4, 4),
        encoded(Image.fromarray(RGB))[:-30],
        encoded(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"),
    ],
)
def test_what_is_no_image_is_said_so(data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(data)
    assert caught.value.code == "image_unreadable"


def test_damaged_bytes_raise_nothing_else() -> None:
    rng = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"):
        whole = bytearray(encoded(Image.fromarray(np.repeat(RGB, 4, axis=0)), kind))
        for _ in range(60):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 3):
                damaged[at] = rng.integers(0, 256)
            try:
                out = decode(bytes(damaged), max_pixels=1_000_000)
            except (BadRequest, TooLarge):
                continue
            assert out.ndim == 3


def test_fit_resizes_and_leaves_alone() -> None:
    assert fit(RGB, 7, 5) is RGB
    assert fit(RGB, 20, 30).shape == (20, 30, 3)
    stripes = np.tile(np.array([0, 255], np.uint8), 64)[None, :, None].repeat(64, 0).repeat(3, 2)
    assert (
        np.abs(fit(stripes, 16, 16)[:, 1:-1].astype(int) - 127).max() <= 2
    )  # antialiased: no stripe survives


@pytest.mark.parametrize(("n", "m"), [(8, 16), (16, 8), (128, 16), (1, 4), (5, 1), (7, 7)])
def test_resampling_keeps_constants_and_centre(n: int, m: int) -> None:
    weights = resampling(n, m)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-12)


def test_features_see_shape_and_colour_one_image_at_a_time() -> None:
    images = RNG.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    out = features(images)
    assert out.shape == (3, 288)
    assert np.abs(out).max() <= 1
    np.testing.assert_array_equal(out[1:2], features(images[1:2]))
    red, blue = np.zeros((2, 8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    assert np.abs(np.diff(features(np.stack([red, blue])), axis=0)).max() > 0.5
