"""A program: served as it was learned, stored bit for bit, refused when it is not one."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from app.contracts import Images, Scores
from app.errors import BadRequest
from app.reprogramming import picture
from app.reprogramming.mapping import (
    LabelMapping,
    best_head,
    frequency_mapping,
    kernel_mapping,
    linear_mapping,
    log_scores,
    score_floor,
)
from app.reprogramming.program import (
    Program,
    columns,
    feature_columns,
    from_bytes,
    predict,
    score,
    to_bytes,
)
from app.reprogramming.program import picture as program_picture
from app.reprogramming.transform import View, render_many

RNG = np.random.default_rng(0)
SOURCE, TARGET = ("red", "green", "blue", "dark"), ("warm", "cold")


async def source_model(images: Images) -> Scores:
    """Four labels from mean colours: enough to tell warm from cold."""
    mean = images.reshape(len(images), -1, 3).mean(axis=1) / 64.0
    powers = np.exp(np.concatenate([mean, np.ones((len(images), 1))], axis=1))
    return np.round(powers / powers.sum(axis=1, keepdims=True), 4)


def task(n: int = 80, seed: int = 0) -> tuple[Images, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    images = rng.integers(0, 140, (n, 6, 6, 3))
    images[..., 0] += 80 * (labels == 0)[:, None, None]
    images[..., 2] += 80 * (labels == 1)[:, None, None]
    return images.astype(np.uint8), labels


VIEWS = (
    View(16, scale=0.5, padding=(10, 20, 30), overlay=RNG.normal(size=(3, 3, 3)), mask="frame"),
    View(16, gain=-0.6, flip=True, turns=1, overlay=RNG.normal(size=(2, 2, 3)), basis="dct", amplitude=0.3),
    View(16),
)


async def learned(kind: str, pixel_features: bool = False) -> Program:
    images, labels = task()
    scores = (await source_model(render_many(VIEWS, images))).reshape(3, len(images), 4)
    floor = score_floor(scores, "probability")
    if kind == "group":
        views, mapping = VIEWS[2:], frequency_mapping(scores[2], labels, 2, 2)
        return Program(views, mapping, SOURCE, TARGET, (6, 6), floor)
    fit = {"linear": linear_mapping, "kernel": kernel_mapping}[kind]
    values = log_scores(scores, floor, "probability")
    x = feature_columns(values, picture.features(images) if pixel_features else None)
    return Program(VIEWS, fit(x, labels, 2), SOURCE, TARGET, (6, 6), floor, pixel_features=pixel_features)


@pytest.mark.parametrize(
    ("kind", "fused"), [("linear", False), ("kernel", False), ("linear", True), ("group", False)]
)
async def test_a_program_learns_serves_and_survives_storage(kind: str, fused: bool) -> None:
    program = await learned(kind, fused)
    images, labels = task(seed=1)
    out = await predict(program, images, source_model)
    np.testing.assert_allclose(out.sum(axis=1), 1)
    assert (out.argmax(axis=1) == labels).mean() > 0.8
    data = to_bytes(program)
    assert to_bytes(program) == data
    again = from_bytes(data)
    assert to_bytes(again) == data
    np.testing.assert_array_equal(await predict(again, images, source_model), out)
    assert (again.source_labels, again.target_labels, again.canonical) == (SOURCE, TARGET, (6, 6))


async def test_queries_are_views_times_images_and_view_major() -> None:
    program = await learned("linear")
    images, _ = task(5)
    asked: list[Images] = []

    async def query(pixels: Images) -> Scores:
        asked.append(pixels)
        return await source_model(pixels)

    out = await predict(program, images, query)
    np.testing.assert_array_equal(np.concatenate(asked), render_many(program.views, images))
    one_by_one = np.concatenate([await predict(program, images[i : i + 1], query) for i in range(5)])
    np.testing.assert_allclose(out, one_by_one)


async def test_columns_put_views_beside_each_other_and_pixels_last() -> None:
    program = await learned("linear", pixel_features=True)
    images, _ = task(7)
    scores = RNG.random((3, 7, 4))
    x = columns(program, scores, images)
    assert x.shape == (7, 12 + 288)
    np.testing.assert_array_equal(x[2, 4:8], log_scores(scores[1, 2], program.floor, "probability"))
    np.testing.assert_array_equal(x[:, 12:], picture.features(images))
    assert score(program, scores, images).shape == (7, 2)


async def test_censored_scores_are_served() -> None:
    images, _ = task(4)
    scores = np.full((3, 4, 4), np.nan)
    scores[..., 1] = 0.7
    for kind in ("linear", "kernel", "group"):
        program = await learned(kind)
        assert np.isfinite(score(program, scores[: len(program.views)], images)).all()


async def test_the_picture_shows_what_was_learned() -> None:
    program = await learned("linear")
    out = program_picture(program)
    assert out.shape == (3, 16, 16, 3)
    assert out.dtype == np.uint8
    assert out[0].max() - out[0].min() > 100


async def test_serving_loads_neither_scikit_learn_nor_scipy() -> None:
    for kind in ("linear", "kernel"):
        program = await learned(kind)
        images, _ = task(3)
        scores = (await source_model(render_many(program.views, images))).reshape(3, 3, 4)
        code = (
            "import sys, json, numpy as np\n"
            "from app.reprogramming import program\n"
            "size = int.from_bytes(sys.stdin.buffer.read(8), 'little')\n"
            "loaded = program.from_bytes(sys.stdin.buffer.read(size))\n"
            f"scores = np.array(json.loads({json.dumps(scores.tolist())!r}))\n"
            "out = program.score(loaded, scores, np.zeros((3, 6, 6, 3), np.uint8))\n"
            "heavy = [m for m in sys.modules if m.split('.')[0] in ('sklearn', 'scipy')]\n"
            "assert not heavy, heavy\n"
            "print(json.dumps(out.tolist()))\n"
        )
        data = to_bytes(program)
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=len(data).to_bytes(8, "little") + data,
            capture_output=True,
            check=True,
        )
        np.testing.assert_array_equal(json.loads(done.stdout), score(program, scores, images))


# ---------------------------------------------------------------- what is refused


async def tampered(change: dict[str, object] | None = None, **tensors: np.ndarray) -> bytes:
    data = to_bytes(await learned("linear"))
    length = int.from_bytes(data[:8], "little")
    config = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["config"])
    return save({**load(data), **tensors}, metadata={"config": json.dumps({**config, **(change or {})})})


async def test_an_untouched_artifact_is_read() -> None:
    assert len(from_bytes(await tampered()).views) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"format": "reprog.program/9"},
        {"views": []},
        {"views": [VIEWS[2].to_config()] * 1000},
        {"views": [VIEWS[2].to_config()] * 2},
        {"views": [{**VIEWS[2].to_config(), "size": 16.5}] * 3},
        {"views": [{**VIEWS[2].to_config(), "size": 10**9}] * 3},
        {"views": [{**VIEWS[2].to_config(), "scale": "NaN"}] * 3},
        {"views": [{**VIEWS[2].to_config(), "surprise": 1}] * 3},
        {"views": [VIEWS[2].to_config(), VIEWS[2].to_config(), View(8).to_config()]},
        {"source_labels": ["a"]},
        {"target_labels": ["a", "b", "c"]},
        {"canonical": [0, 6]},
        {"canonical": [10**6, 6]},
        {"floor": float("nan")},
        {"score_kind": "colour"},
        {"mapping": {"kind": "tree", "gamma": 0.0}},
        {"mapping": {"kind": "kernel", "gamma": 0.0}},
        {"pixel_features": True},
    ],
)
async def test_a_config_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    data = await tampered(change)
    with pytest.raises(BadRequest) as caught:
        from_bytes(data)
    assert caught.value.code == "artifact_invalid"


@pytest.mark.parametrize(
    "tensors",
    [
        {"mapping.weights": np.full((12, 2), np.nan)},
        {"mapping.weights": np.zeros((11, 2))},
        {"mapping.scale": np.zeros(12)},
        {"mapping.bias": np.zeros(2, np.float32)},
        {"overlay.0": np.zeros((99, 99, 3))},
        {"overlay.1": np.full((2, 2, 3), np.inf)},
    ],
)
async def test_arrays_that_do_not_fit_are_refused(tensors: dict[str, np.ndarray]) -> None:
    data = await tampered(**tensors)
    with pytest.raises(BadRequest) as caught:
        from_bytes(data)
    assert caught.value.code == "artifact_invalid"


async def test_bytes_that_are_no_artifact_are_refused() -> None:
    whole = to_bytes(await learned("linear"))
    huge_header = (2**60).to_bytes(8, "little") + b"{}"
    for data in (b"", b"\x80\x04K\x01.", whole[:-5], whole[40:], huge_header, whole[:8] + b"{" * 500):
        with pytest.raises(BadRequest) as caught:
            from_bytes(data)
        assert caught.value.code == "artifact_invalid"


async def test_parts_that_do_not_fit_make_no_program() -> None:
    program = await learned("linear")
    for wrong in ({"views": ()}, {"source_labels": ("a",)}, {"floor": float("inf")}, {"canonical": (0, 1)}):
        with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
            replace(program, **wrong)


def test_more_views_tell_classes_apart_that_one_cannot() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 400)
    hidden = np.stack([labels // 2, labels % 2], axis=1) + rng.normal(size=(400, 2)) * 0.35
    one = hidden[:, :1] @ rng.normal(size=(1, 3))
    both = np.concatenate([one, hidden[:, 1:] @ rng.normal(size=(1, 3))], axis=1)
    right = [(best_head(x, labels, 4)[1].argmax(axis=1) == labels).mean() for x in (one, both)]
    assert right[1] > right[0] + 0.2


def test_a_mapping_of_the_wrong_width_is_refused() -> None:
    mapping = LabelMapping("linear", np.zeros((3, 2)), np.zeros(2), np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="does not fit"):
        Program((View(8),), mapping, SOURCE, TARGET, (6, 6), 1e-4)
