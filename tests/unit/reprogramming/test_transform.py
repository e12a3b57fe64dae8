"""Source images: placement, frame, overlay and the one rounding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.reprogramming.transform import (
    View,
    distinct_fraction,
    offset,
    parameters,
    render,
    render_many,
    with_parameters,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)
level = st.floats(0, 255)


@st.composite
def any_view(draw: st.DrawFn, size: int = 24) -> View:
    basis = draw(st.sampled_from(["grid", "dct", "pixel"]))
    cells = size if basis == "pixel" else draw(st.integers(1, 6))
    overlay = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(cells, cells, 3)) * 3
    return View(
        size,
        scale=draw(st.floats(0.01, 4)),
        x=draw(st.floats(0, 1)),
        y=draw(st.floats(0, 1)),
        padding=(draw(level), draw(level), draw(level)),
        gain=draw(st.sampled_from([-1.0, -0.6, 0.6, 1.0])),
        brightness=draw(st.floats(-40, 40)),
        turns=draw(st.integers(-3, 5)),
        flip=draw(st.booleans()),
        overlay=draw(st.sampled_from([None, overlay])),
        basis=basis,
        amplitude=draw(st.floats(0, 1)),
        mask=draw(st.sampled_from(["frame", "full"])),
    )


@settings(max_examples=60, deadline=None)
@given(any_view())
def test_every_view_gives_uint8_and_the_same_twice(view: View) -> None:
    out = render(view, IMAGES)
    assert out.dtype == np.uint8
    assert out.shape == (5, 24, 24, 3)
    np.testing.assert_array_equal(out, render(view, IMAGES))
    np.testing.assert_array_equal(out[2:3], render(view, IMAGES[2:3]))


@settings(max_examples=40, deadline=None)
@given(st.lists(any_view(), min_size=1, max_size=4))
def test_many_views_at_once_equal_one_at_a_time(views: list[View]) -> None:
    np.testing.assert_array_equal(
        render_many(views, IMAGES), np.concatenate([render(view, IMAGES) for view in views])
    )


@settings(max_examples=40, deadline=None)
@given(any_view())
def test_the_config_round_trip_shows_the_same_pixels(view: View) -> None:
    again = View.from_config(view.to_config(), view.overlay)
    np.testing.assert_array_equal(render(again, IMAGES), render(view, IMAGES))


@settings(max_examples=40, deadline=None)
@given(any_view())
def test_what_surrounds_the_image_does_not_depend_on_it(view: View) -> None:
    out = render(view, IMAGES)
    frame = np.ones((24, 24), dtype=bool)
    frame[view.placed] = False
    assert (out[:, frame] == out[:1, frame]).all()


def test_bar_by_its_equations() -> None:
    """X in [-1, 1] in the middle of a zero frame; P = tanh(W * M); pixel = (X + P + 1) * 127.5."""
    image = RNG.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    w = RNG.normal(size=(8, 8, 3))
    grey = (127.5, 127.5, 127.5)
    view = View(8, scale=0.5, padding=grey, overlay=w, basis="pixel", mask="frame")
    x, m = np.zeros((8, 8, 3)), np.ones((8, 8, 3))
    x[2:6, 2:6], m[2:6, 2:6] = image[0] / 127.5 - 1, 0
    wanted = np.clip((x + np.tanh(w * m) + 1) * 127.5, 0, 255)
    out = render(view, image)[0]
    assert np.abs(out - wanted).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(out[2:6, 2:6], image[0])


def test_the_frame_mask_leaves_the_image_exactly() -> None:
    overlay = RNG.normal(size=(3, 3, 3)) * 5
    framed = View(30, scale=0.4, overlay=overlay, mask="frame")
    plain = View(30, scale=0.4)
    top, left, side = framed.box()
    box = (slice(None), slice(top, top + side), slice(left, left + side))
    np.testing.assert_array_equal(render(framed, IMAGES)[box], render(plain, IMAGES)[box])
    assert (render(framed, IMAGES) != render(plain, IMAGES)).any()


def test_tone_and_overlay_are_rounded_together() -> None:
    """0.3 of a grey level each: rounded one by one both would be lost, together they are one level."""
    image = np.full((1, 4, 4, 3), 100, np.uint8)
    lift = np.full((1, 1, 3), np.arctanh(0.3 / 127.5))
    assert render(View(4, brightness=0.3), image).max() == 100
    assert render(View(4, overlay=lift), image).max() == 100
    assert render(View(4, brightness=0.3, overlay=lift), image).min() == 101


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.0, 1.0), (0.3, 0.8)])
def test_above_scale_one_a_part_of_the_enlarged_image_shows(x: float, y: float) -> None:
    smooth = np.asarray(np.add.outer(np.arange(40) * 3, np.arange(30) * 4), np.uint8)
    image = np.stack([smooth, smooth.T[:1].repeat(40, axis=0)[:, :30], 255 - smooth], axis=-1)[None]
    view = View(20, scale=2.5, x=x, y=y, turns=1)
    whole = render(View(50, turns=1), image)[0].astype(int)
    top, left, side = view.box()
    assert (side, top, left) == (50, -round(30 * y), -round(30 * x))
    wanted = whole[-top : 20 - top, -left : 20 - left]
    assert np.abs(render(view, image)[0].astype(int) - wanted).max() <= 2
    shifted = View(20, scale=2.5, x=x, y=y, turns=1, overlay=np.full((1, 1, 3), 0.1))
    assert (render(shifted, image) != render(view, image)).any()


def test_gain_brightness_turns_and_flip() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 0] = 200
    assert render(View(2, gain=-1), image)[0, 0, 0].tolist() == [55, 55, 55]
    assert render(View(2, brightness=100), image)[0, 0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(render(View(2, turns=1), image)[0], np.rot90(image[0]))
    np.testing.assert_array_equal(render(View(2, flip=True), image)[0], image[0, :, ::-1])


def test_placement_reaches_every_corner() -> None:
    white = np.full((1, 4, 4, 3), 255, np.uint8)
    for x, y, row, column in ((0, 0, 0, 0), (1, 0, 0, -1), (0, 1, -1, 0), (1, 1, -1, -1)):
        out = render(View(16, scale=0.25, x=x, y=y, padding=(0, 0, 0)), white)[0]
        assert out[row, column].min() == 255
        assert (out > 0).sum() == 16 * 3


def test_overlay_bases() -> None:
    constant = np.full((3, 3, 3), 0.4)
    np.testing.assert_allclose(offset(View(20, overlay=constant)), 127.5 * np.tanh(0.4), rtol=1e-5)
    waves = np.zeros((4, 4, 3))
    waves[1, 2] = 1e-3  # small: tanh is the identity
    spread = offset(View(32, overlay=waves, basis="dct"))
    assert spread is not None
    assert np.sqrt((spread**2).mean()) == pytest.approx(127.5e-3, rel=1e-3)
    assert offset(View(20, overlay=constant, amplitude=0.0)) is None


def test_parameters_go_in_and_out() -> None:
    view = View(16, overlay=np.zeros((2, 2, 3)))
    assert parameters(view) == 12
    assert parameters(View(16)) == 0
    moved = with_parameters(view, np.arange(12.0))
    assert moved.overlay is not None
    assert moved.overlay.ravel().tolist() == list(range(12))
    with pytest.raises(ValueError, match="12 parameters"):
        with_parameters(view, np.zeros(5))


def test_distinct_fraction_counts_images_that_moved() -> None:
    base = render(View(16), IMAGES)
    moved = base.copy()
    moved[0, 3, 3, 0] ^= 1
    assert distinct_fraction(base, np.concatenate([base, moved])) == pytest.approx(0.1)
    tiny = View(16, overlay=np.full((2, 2, 3), 1e-4))  # 0.013 grey levels: rounding eats it
    assert distinct_fraction(base, render(tiny, IMAGES)) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": 0.0},
        {"scale": 4.1},
        {"x": -0.1},
        {"gain": float("nan")},
        {"padding": (0.0, 0.0, 256.0)},
        {"overlay": np.zeros((2, 3, 3))},
        {"overlay": np.zeros((2, 2, 3)), "basis": "pixel"},
        {"overlay": np.full((2, 2, 3), np.inf)},
        {"size": 0},
        {"size": 100_000},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        View(**{"size": 16, **wrong})  # type: ignore[arg-type]
