"""F1 to F30 through adapter and gateway, over HTTP: the outcome, what was billed, what the user reads, and
that no other image suffered. What they are is in `fault_cases`."""

from __future__ import annotations

import asyncio
import io
import json
import re
from base64 import b64decode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_cases import CASES, SECRET, SERVICES, Answer, Service, says, tags
from gateway_house import FAST, House, images, open_house
from PIL import Image

from app import errors
from app.contracts import Images, Limits, Price, Provider
from app.gateway.account import Answers
from app.gateway.client import Client
from app.gateway.query import Account, Gateway
from app.providers import make
from app.reprogramming import picture
from app.storage.answers import Answers as Store
from app.storage.connections import LabelBook


@dataclass
class World(Service):
    """The provider, with the real gateway before it."""

    house: House = None  # type: ignore[assignment]

    def provider(self, **options: Any) -> Provider:
        return make(self.name, self.url, self.model, SECRET, options)

    def gateway(self, provider: Provider | None = None, **options: Any) -> Gateway:
        limits = options.pop("limits", Limits(5000, 1, 16))
        account = Account("conn_1", "cred", provider or self.provider(), Price(1_200), limits)
        return Gateway(
            account, self.house.ledger, Store(self.house.engine), self.house.rates,
            LabelBook(self.house.engine, "conn_1"), options.pop("client", self.house.client),
            **{"scope": "job_1", "fence": 1, "policy": FAST, **options},
        )  # fmt: skip


@asynccontextmanager
async def world(url: str, name: str, *script: Answer) -> AsyncGenerator[World]:
    async with open_house(url) as house:
        made = World(name, list(script), house=house)
        async with made.serve():
            yield made
            house.settled()


@pytest.mark.parametrize("name", CASES)
async def test_fault(sqlite_url: str, name: str) -> None:
    case = CASES[name]
    side = 80 if case.service == "rekognition" else 8
    pixels = np.random.default_rng(5).integers(0, 256, (case.images, side, side, 3), np.uint8)
    async with world(sqlite_url, case.service, *case.script) as w, Client(
        allow_private=True, total_seconds=0.5
    ) as client:  # fmt: skip
        gateway = w.gateway(client=client)
        answers: Answers | None = None
        if case.error is None:
            answers = await gateway.ask(pixels)
            assert len(answers.rejected) == case.rejected
            answered = np.isfinite(answers.scores).any(axis=1)
            assert answered.sum() == case.images - case.rejected  # nobody else's answer was lost
            assert all(isinstance(error, errors.Rejected) for error in answers.rejected.values())
        else:
            with pytest.raises(case.error, match=case.text) as caught:
                await gateway.ask(pixels)
            assert "a-secret-word" not in str(caught.value)
        cost = w.house.ledger.cost("job_1")
        assert cost.queries_spent == case.spent
        if case.error is not None:  # nothing is lost: once it is mended, only the rest is bought
            again = await w.gateway(client=client).ask(pixels)
            assert again.sent == case.images - case.spent
            assert np.isfinite(again.scores).any(axis=1).all()


def test_every_fault_goes_through_the_gateway() -> None:
    """F1 to F30: a case of the table, or a test named after it here."""
    named = "".join(re.findall(r"def test_((?:f\d+_)+)", Path(__file__).read_text()))
    named += "".join(f"f{name[1:]}" for name in CASES)
    assert {int(number) for number in re.findall(r"f(\d+)[_ ]", named)} == set(range(1, 31))


# ---------------------------------------------------------------- before a byte is sent


async def test_f12_too_many_bytes(sqlite_url: str) -> None:
    pixels = np.zeros((2, 80, 80, 3), np.uint8)
    async with world(sqlite_url, "custom_vision") as w:
        raw = make("http_json", w.url, {"layout": "dict", "max_bytes": 25_000}, "", {})
        limit = {"max_bytes": 25_000, "max_bytes_applies_to": "base64"}
        text = make("http_json", w.url, {"layout": "dict", "image": limit}, "", {})
        assert text.info.max_image_bytes == 18_750  # the limit is on the base64 text
        assert (await w.gateway(text).ask(pixels)).rejected[1].code == "image_rejected"
        assert not w.bodies
        w.script = [says(200, {"a": 0.5})] * 2
        assert not (await w.gateway(raw).ask(pixels)).rejected


async def test_f13_too_small(sqlite_url: str) -> None:
    async with world(sqlite_url, "rekognition") as w:
        answers = await w.gateway().ask(images(3))
        assert len(answers.rejected) == 3
        assert "80 pixels" in answers.rejected[0].detail
        assert not w.bodies
        assert w.house.ledger.cost("job_1").queries_spent == 0


def test_f14_images_are_made_large_enough_by_us() -> None:
    assert make("custom_vision", "http://x", SERVICES["custom_vision"][0], "", {}).info.input_size >= 256


async def test_f15_f17_f24_pixels_arrive_as_they_are(sqlite_url: str) -> None:
    """8-bit RGB, lossless, no metadata (F16: orientation is applied before, once), one base64 (F24)."""
    pixels: Images = np.random.default_rng(1).integers(0, 256, (1, 9, 7, 3), np.uint8)
    async with world(sqlite_url, "clarifai") as w:
        await w.gateway().ask(pixels)
    [given] = json.loads(w.bodies[0])["inputs"]
    png = b64decode(given["data"]["image"]["base64"], validate=True)
    assert png[24:26] == b"\x08\x02"
    assert b"eXIf" not in png
    assert b"iCCP" not in png
    with Image.open(io.BytesIO(png)) as arrived:
        np.testing.assert_array_equal(np.asarray(arrived), pixels[0])


def test_f16_orientation_is_applied() -> None:
    upright = Image.fromarray(np.random.default_rng(2).integers(0, 256, (8, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    upright.save(out, "PNG", exif=exif)
    assert picture.decode(out.getvalue()).shape == (16, 8, 3)


def test_f18_answers_of_two_addresses_are_two_models() -> None:
    scopes = {
        make("custom_vision", url, SERVICES["custom_vision"][0], "", {}).info.cache_scope
        for url in ("https://a.example", "https://b.example")
    }
    assert len(scopes) == 2


# ---------------------------------------------------------------- while it runs


async def test_f19_the_version_changes(sqlite_url: str) -> None:
    script = [says(200, tags(0.9, 0.1)), says(200, tags(0.8, 0.2, version="v2"))]
    async with world(sqlite_url, "custom_vision", *script) as w:
        with pytest.raises(errors.ModelChanged) as caught:
            await w.gateway(pin_version=True).ask(images(3))
        assert caught.value.code == "source_model_changed"
        assert w.house.ledger.cost("job_1").queries_spent == 2
        assert LabelBook(w.house.engine, "conn_1").version() == "v2"


async def test_f20_labels_move_appear_and_vanish(sqlite_url: str) -> None:
    rows = [
        [("b", "i2", 0.2), ("a", "i1", 0.8)],
        [("a", "i1", 1.0)],
        [("c", "i3", 0.5), ("a", "i1", 0.3), ("a", "i9", 0.2)],
    ]

    def answer(labels: list[tuple[str, str, float]]) -> Answer:
        found = [{"tagName": name, "tagId": ident, "probability": p} for name, ident, p in labels]
        return says(200, {"iteration": "v1", "predictions": found})

    async with world(sqlite_url, "custom_vision", *map(answer, rows)) as w:
        answers = await w.gateway().ask(images(3))
    assert answers.labels == ("b", "a", "c", "a [i1]", "a [i9]")
    seen = np.isfinite(answers.scores).tolist()
    assert seen == [
        [True, True, False, False, False],
        [False, True, False, False, False],
        [False, False, True, True, True],
    ]
    assert answers.scores[0, :2] == pytest.approx([0.2, 0.8])


async def test_f23_one_image_per_request(sqlite_url: str) -> None:
    async with world(sqlite_url, "openai_moderation") as w:
        await w.gateway().ask(images(3))
    assert [len(json.loads(body)["input"]) for body in w.bodies] == [1, 1, 1]


async def test_f28_the_first_answer_stays(sqlite_url: str) -> None:
    script = [says(200, tags(0.9, 0.1)), says(200, tags(0.89, 0.11))]
    async with world(sqlite_url, "custom_vision", *script) as w:
        first = await w.gateway().ask(images(1))
        second = await w.gateway().ask(images(1))
        np.testing.assert_array_equal(first.scores, second.scores)
        assert len(w.bodies) == 1


async def test_f29_a_slow_success_is_a_success(sqlite_url: str) -> None:
    async with world(sqlite_url, "custom_vision", "hang") as w, Client(allow_private=True) as client:
        answers = await w.gateway(client=client).ask(images(1))
        assert answers.sent == 1
        assert w.house.ledger.cost("job_1").unknown_queries == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_f30_redirects_are_not_followed(sqlite_url: str, status: int) -> None:
    async with world(sqlite_url, "clarifai") as other, world(sqlite_url, "custom_vision") as w:
        w.script = [says(status, {}, Location=f"{other.url}/elsewhere")]
        with pytest.raises(errors.ConfigError):
            await w.gateway().ask(images(1))
        assert not other.bodies
        assert len(w.bodies) == 1


async def test_f1_one_pause_for_all(sqlite_url: str) -> None:
    """One 429 stops every request of the account, whichever gateway sends, and they come back in order."""
    async with world(sqlite_url, "custom_vision", says(429, {}, Retry_After="0.8")) as w:
        limits = Limits(20, 8, 1)
        asks = [w.gateway(limits=limits).ask(images(8, seed=n)) for n in range(2)]
        await asyncio.gather(*asks)
        first = w.arrivals[0]
        later = sorted(at for at in w.arrivals if at > first + 0.2)  # what was under way had left before
        assert len(w.arrivals) == 17
        assert later[0] >= first + 0.75
        assert len([at for at in later if at < later[0] + 0.3]) <= 8  # 20 a second
