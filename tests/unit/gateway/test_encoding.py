"""Our PNG files hold the pixels, whoever decodes them; keys tell apart what may differ."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.contracts import ProviderInfo
from app.gateway.encoding import KEY_BYTES, digest, encode, key

INFO = ProviderInfo("p", "scope")


@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 300), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_pillow_reads_back_every_pixel(n: int, height: int, width: int, compressed: bool, seed: int) -> None:
    images = np.random.default_rng([seed]).integers(0, 256, (n, height, width, 3), np.uint8)
    for image, png in zip(images, encode(images, compressed=compressed), strict=True):
        with Image.open(io.BytesIO(png)) as opened:
            opened.verify()  # checksums of the chunks
        with Image.open(io.BytesIO(png)) as opened:
            assert opened.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(opened), image)


@pytest.mark.parametrize("side", [147, 148, 149, 224])  # around one and at several stored blocks
def test_stored_stream_is_valid_deflate(side: int) -> None:
    images = np.random.default_rng([side]).integers(0, 256, (1, side, side, 3), np.uint8)
    [png] = encode(images)
    start = png.index(b"IDAT") + 4
    raw = zlib.decompress(png[start:-16])
    rows = np.frombuffer(raw, np.uint8).reshape(side, 1 + 3 * side)
    assert not rows[:, 0].any()
    np.testing.assert_array_equal(rows[:, 1:].reshape(side, side, 3), images[0])


def test_views_that_are_not_contiguous() -> None:
    images = np.random.default_rng([3]).integers(0, 256, (2, 8, 8, 3), np.uint8)[:, ::-1, ::2]
    with Image.open(io.BytesIO(encode(images)[1])) as opened:
        np.testing.assert_array_equal(np.asarray(opened), images[1])


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 2, 2, 4), (1, 0, 2, 3)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        encode(np.zeros((1, 2, 2, 3)))


def test_keys() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = digest(pixels)
    base = key("conn_1", INFO, "v", image)
    assert len(base) == KEY_BYTES
    assert base == key("conn_1", INFO, "v", digest(pixels.copy()))
    others = [
        key("conn_2", INFO, "v", image),
        key("conn_1s", ProviderInfo("p", "cope"), "v", image),
        key("conn_1", INFO, "w", image),
        key("conn_1", INFO, "v", digest(pixels + np.uint8(1))),
        key("conn_1", INFO, "v", digest(pixels.reshape(3, 2, 3))),
        key("conn_1", ProviderInfo("p", "scop"), "ev", image),
        key("conn_1", ProviderInfo("p", "scopev"), "", image),
    ]
    assert len({base, *others}) == 8


def test_a_digest_is_of_pixels_not_of_memory() -> None:
    image = np.random.default_rng([4]).integers(0, 256, (6, 6, 3), np.uint8)
    assert digest(image[::-1, ::2]) == digest(image[::-1, ::2].copy())
