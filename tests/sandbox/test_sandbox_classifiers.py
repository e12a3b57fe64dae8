"""The classifiers in this process: right shapes, same bits in any company, and the same as over HTTP."""

import importlib.util
from collections.abc import Sequence

import numpy as np
import pytest
from sandbox_client import Client, encoded, picture

from app.sandbox import classifiers
from app.sandbox.classifiers import NAMES, Name, Size, load

LABELS: dict[Name, int] = {"nsfw": 2, "moderation": 5, "imagenet": 1000, "traffic-signs": 43}


def pictures(count: int, side: int) -> classifiers.Images:
    return np.stack([picture(seed, side) for seed in range(count)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [128, 224])
def test_scores_are_probabilities_over_distinct_labels(name: Name, size: Size) -> None:
    classifier = load(name, size)
    scores = classifier.scores(pictures(3, size))
    assert scores.shape == (3, LABELS[name])
    assert scores.dtype == np.float64
    assert len(set(classifier.labels)) == LABELS[name]
    assert np.all(scores >= 0)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [128, 224])
def test_scores_do_not_depend_on_the_batch(name: Name, size: Size) -> None:
    classifier = load(name, size)
    images = pictures(5, size)
    together = classifier.scores(images)
    alone = np.concatenate([classifier.scores(image[None]) for image in images[::-1]])[::-1]
    assert np.array_equal(together, alone)
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize("name", ["nsfw", "moderation", "imagenet"])
def test_the_small_form_ranks_pictures_like_the_large_one(name: Name) -> None:
    images = pictures(40, 224)
    large, small = (np.log(load(name, size).scores(images) + 1e-12) for size in (224, 128))
    assert np.corrcoef(large.ravel(), small.ravel())[0, 1] > 0.6


def test_traffic_signs_recognises_a_drawn_sign() -> None:
    """A blue disc is one of the blue round signs, a red one is not."""
    grid = np.hypot(*np.mgrid[-1:1:64j, -1:1:64j])
    blue = np.where(grid[..., None] < 0.8, [10, 60, 170], [120, 120, 120]).astype(np.uint8)
    classifier = load("traffic-signs")
    best = classifier.labels[int(classifier.scores(blue[None])[0].argmax())]
    assert best in classifier.labels[33:41]


def test_values_survive_json() -> None:
    scores = load("imagenet", 128).scores(pictures(1, 128))[0]
    assert all(value == float(np.float32(value).astype(str)) for value in scores)


@pytest.mark.parametrize("name", ["nsfw-recognition", "moderation-recognition", "imagenet-classification"])
@pytest.mark.parametrize("suffix", ["", "-128", "-224"])
@pytest.mark.parametrize("side", [128, 200])
def test_in_process_scores_equal_those_over_http(client: Client, name: str, suffix: str, side: int) -> None:
    short: dict[str, Name] = {
        "nsfw-recognition": "nsfw",
        "moderation-recognition": "moderation",
        "imagenet-classification": "imagenet",
    }
    images = pictures(3, side)
    reply = client.clarifai(*map(encoded, images), model=name + suffix, max_concepts=1000).json()
    classifier = load(short[name], 224 if suffix == "-224" else 128)
    for output, expected in zip(reply["outputs"], classifier.scores(images), strict=True):
        values = {concept["name"]: concept["value"] for concept in output["data"]["concepts"]}
        assert [values[label] for label in classifier.labels] == expected.tolist()


def test_custom_vision_scores_equal_those_in_process(client: Client) -> None:
    image = picture(3, 96)
    predictions = client.custom_vision(encoded(image)).json()["predictions"]
    values = {found["tagName"]: found["probability"] for found in predictions}
    classifier = load("traffic-signs")
    assert [values[label] for label in classifier.labels] == classifier.scores(image[None])[0].tolist()


def test_missing_packages_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    with pytest.raises(
        classifiers.SandboxUnavailableError, match=r"onnxruntime.*pip install 'reprog\[sandbox\]'"
    ):
        classifiers.require_packages()


def test_model_files_stay_small_and_licensed() -> None:
    models: Sequence[object] = list(classifiers.MODELS.glob("*.onnx"))
    assert len(models) == 6
    assert sum(path.stat().st_size for path in classifiers.MODELS.glob("*.onnx")) <= 30_000_000
    assert (classifiers.MODELS / "NOTICE.md").exists()
    assert len(list(classifiers.MODELS.glob("LICENSE-*"))) == 3
