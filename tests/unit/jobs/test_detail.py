"""Whether a service makes images smaller or compresses them again: over all the sandbox's networks, never a
wrong yes. What it cannot notice is stated here too."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.contracts import Images, Scores
from app.jobs import detail as probes
from app.sandbox.classifiers import Classifier, Name, Size, load

Service = Callable[[Images], Images]  # what it does to one image first

NETWORKS: list[tuple[Name, Size]] = [
    ("nsfw", 128), ("nsfw", 224), ("moderation", 128), ("moderation", 224), ("imagenet", 128),
    ("imagenet", 224), ("traffic-signs", 224),
]  # fmt: skip
GREYS = (100, 171)


def smaller(share: float, kernel: Image.Resampling = Image.Resampling.BILINEAR) -> Service:
    def resized(image: Images) -> Images:
        side = round(share * len(image))
        return np.asarray(Image.fromarray(image).resize((side, side), kernel))

    return resized


def jpeg(quality: int, subsampling: str = "4:2:0") -> Service:
    def compressed(image: Images) -> Images:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=quality, subsampling=subsampling)
        return np.asarray(Image.open(out))

    return compressed


def sampled(image: Images) -> Images:
    """Smaller without smoothing: every other pixel and its neighbours are not looked at."""
    places = np.linspace(0, len(image) - 1, round(0.7 * len(image))).round().astype(int)
    return image[places][:, places]


#: what the service does -> what may be said of (resizing, compression)
SERVICES: dict[str, tuple[Service, set[tuple[bool | None, bool | None]]]] = {
    "nothing": (lambda image: image, {(False, False)}),
    "half": (smaller(0.5), {(True, None)}),
    "0.57": (smaller(0.57), {(True, None)}),
    "0.57 bicubic": (smaller(0.57, Image.Resampling.BICUBIC), {(True, None)}),
    "0.57 lanczos": (smaller(0.57, Image.Resampling.LANCZOS), {(True, None)}),
    "0.75, not told from another compression": (smaller(0.75), {(None, None)}),
    "0.9, not noticed": (smaller(0.9), {(False, False)}),
    "0.7 without smoothing, not noticed": (sampled, {(False, False)}),
    "JPEG 50": (jpeg(50), {(None, True)}),
    "JPEG 70": (jpeg(70), {(None, True)}),
    "JPEG 90": (jpeg(90), {(None, True)}),
    "JPEG 95": (jpeg(95), {(False, True)}),
    "JPEG 70 with all colours, not told from resizing": (jpeg(70, "4:4:4"), {(None, None)}),
    "JPEG, then smaller": (lambda image: smaller(0.8)(jpeg(70)(image)), {(None, True)}),
}


async def told(
    network: Classifier | Callable[[Images], Scores], service: Service, side: int
) -> dict[str, Any]:
    scores = network.scores if isinstance(network, Classifier) else network
    asked = 0

    async def ask(images: Images) -> Scores:
        nonlocal asked
        asked += len(images)
        return scores(np.stack([service(image) for image in images]))

    base = await ask(probes.plain(side)[None])
    found = await probes.detail(ask, base, side, exact=True)
    assert asked - 1 == len(found["probes"])
    assert asked - 1 in (3, 4)
    return found


@pytest.mark.parametrize("name", SERVICES)
async def test_no_wrong_yes_over_all_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error rates: nothing but what is stated, for every network and every grey."""
    service, allowed = SERVICES[name]
    counted = Counter[tuple[bool | None, bool | None]]()
    for network, size in NETWORKS:
        loaded = load(network, size)
        if loaded.side < 4 * probes.LEAST_STRONG:
            continue  # below
        for grey in GREYS:
            monkeypatch.setattr(probes, "GREY", grey)
            found = await told(loaded, service, loaded.side)
            counted[found["seems_to_resize"], found["seems_to_recompress"]] += 1
    assert counted.total() == 6 * len(GREYS)
    assert set(counted) == allowed


@pytest.mark.parametrize(
    ("network", "size", "side", "resizes"),
    [
        ("nsfw", 128, 224, True),
        ("imagenet", 128, 224, True),
        ("traffic-signs", 224, 256, True),
        ("traffic-signs", 224, 64, True),
        ("traffic-signs", 224, 32, False),
        ("moderation", 224, 128, False),  # made larger: every pixel arrives
        ("imagenet", 224, 256, False),  # 0.875: too mild to be noticed
    ],
)
async def test_networks_of_another_size_than_is_sent(
    network: Name, size: Size, side: int, resizes: bool
) -> None:
    found = await told(load(network, size), lambda image: image, side)
    assert found["seems_to_resize"] is resizes


async def test_small_images_are_never_called_resized() -> None:
    """Below 64 pixels the strong pattern would not survive a poor JPEG either."""
    network = load("traffic-signs", 224)
    for service, _ in SERVICES.values():
        found = await told(network, service, 32)
        assert found["seems_to_resize"] is not True


async def test_who_answers_nothing_gets_no_verdict() -> None:
    def deaf(images: Images) -> Scores:
        return np.full((len(images), 2), 0.5)

    found = await told(deaf, lambda image: image, 128)
    assert (found["seems_to_resize"], found["seems_to_recompress"]) == (None, None)
    assert not any(found["probes"].values())


async def test_who_looks_at_grey_alone_is_not_said_to_compress() -> None:
    network = load("moderation", 128)

    def grey(image: Images) -> Images:
        return np.asarray(Image.fromarray(smaller(0.75)(image)).convert("L").convert("RGB"))

    found = await told(network, grey, 128)
    assert (found["seems_to_resize"], found["seems_to_recompress"]) == (None, None)
    assert not found["probes"]["coarse_colour"]


async def test_answers_that_vary_tell_nothing() -> None:
    network, rng = load("moderation", 128), np.random.default_rng(1)

    def noisy(images: Images) -> Scores:
        return network.scores(images) + rng.normal(0, 1e-4, (len(images), 5))

    found = await told(noisy, lambda image: image, 128)
    assert (found["seems_to_resize"], found["seems_to_recompress"]) == (None, None)
    assert found["probes"]["again"]


@pytest.mark.parametrize("service", ["nothing", "half", "JPEG 70"])
async def test_rounded_scores_are_never_called_lost(service: str) -> None:
    network = load("moderation", 128)

    async def ask(images: Images) -> Scores:
        return network.scores(np.stack([SERVICES[service][0](image) for image in images])).round(2)

    base = await ask(probes.plain(128)[None])
    found = await probes.detail(ask, base, 128, exact=False)
    assert found["seems_to_resize"] is not True
    assert found["seems_to_recompress"] is not True


async def test_labels_learned_meanwhile_are_no_change() -> None:
    """A service that answers its best few labels: columns come along as they appear."""
    seen = 1

    async def ask(images: Images) -> Scores:
        nonlocal seen
        seen += 1
        return np.concatenate([np.full((len(images), 1), 0.5), np.full((len(images), seen), np.nan)], axis=1)

    found = await probes.detail(ask, await ask(probes.plain(64)[None]), 64, exact=True)
    assert not any(found["probes"].values())
