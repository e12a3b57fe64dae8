"""What goes wrong with real services, case by case (F1 to F30), through adapter and gateway over HTTP: the
outcome, what was billed, what the user reads, and that no other image suffered."""

from __future__ import annotations

import asyncio
import io
import json
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from aiohttp import web
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

SAFE = {"safeSearchAnnotation": {"adult": "LIKELY", "racy": "UNLIKELY"}}


def tags(*probabilities: object, version: str = "v1") -> dict[str, Any]:
    rows = [{"tagName": "ab"[n], "tagId": f"t{n}", "probability": p} for n, p in enumerate(probabilities)]
    return {"iteration": version, "predictions": rows}


def concepts(count: int, *codes: int) -> dict[str, Any]:
    """A Clarifai answer; `codes` of the outputs, 10000 where none is given."""
    outputs = []
    for n in range(count):
        code = codes[n] if n < len(codes) else 10000
        rows = [{"id": "i1", "name": "a", "value": 0.9}, {"id": "i2", "name": "b", "value": 0.1}]
        data = {"concepts": rows} if code == 10000 else {}
        model = {"model_version": {"id": "v1"}}
        outputs.append({"status": {"code": code}, "input": {"id": f"q{n}"}, "model": model, "data": data})
    mixed = any(code != 10000 for code in codes)
    return {"status": {"code": 10010 if mixed else 10000}, "outputs": outputs}


#: provider -> (model, images in a request's body, a good answer to that many images)
SERVICES: dict[str, tuple[dict[str, Any], Callable[[bytes], int], Callable[[int], object]]] = {
    "custom_vision": ({"project_id": "p", "published_name": "n"}, lambda _: 1, lambda _: tags(0.9, 0.1)),
    "clarifai": ({"model_id": "m"}, lambda body: len(json.loads(body)["inputs"]), concepts),
    "google_vision": (
        {}, lambda body: len(json.loads(body)["requests"]), lambda n: {"responses": [SAFE] * n}
    ),
    "huggingface": ({"model": "m"}, lambda _: 1, lambda _: [{"label": "a", "score": 0.9}]),
    "rekognition": ({}, lambda _: 1, lambda _: {"ModerationLabels": [{"Name": "a", "Confidence": 9.0}]}),
    "openai_moderation": (
        {}, lambda _: 1,
        lambda _: {"model": "m", "results": [{"category_scores": {"sexual": 0.5, "violence": 0.5}}]},
    ),
}  # fmt: skip

Answer = Callable[[bytes], web.Response] | str


@dataclass
class World:
    """One provider that answers by a script, then well; and the real gateway before it."""

    house: House
    name: str
    script: list[Answer]
    bodies: list[bytes]
    url: str = ""

    def provider(self, **options: Any) -> Provider:
        model = SERVICES[self.name][0]
        return make(self.name, self.url, model, "AKID:a-secret-word-0123456789", options)

    def gateway(self, provider: Provider | None = None, **options: Any) -> Gateway:
        account = Account("conn_1", "cred", provider or self.provider(), Price(1_200), Limits(5000, 1, 16))
        return Gateway(
            account, self.house.ledger, Store(self.house.engine), self.house.rates,
            LabelBook(self.house.engine, "conn_1"), options.pop("client", self.house.client),
            **{"scope": "job_1", "fence": 1, "policy": FAST, **options},
        )  # fmt: skip

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        if not self.script:
            return web.json_response(SERVICES[self.name][2](SERVICES[self.name][1](body)))
        answer = self.script.pop(0)
        if callable(answer):
            return answer(body)
        if answer == "hang":
            await asyncio.sleep(1.0)
            return web.json_response(SERVICES[self.name][2](1))
        response = web.StreamResponse(headers={"Content-Length": "500"})
        if answer == "truncated":
            await response.prepare(request)
            await response.write(b'{"predictions":')
        assert request.transport is not None
        request.transport.abort()
        return response


@asynccontextmanager
async def world(url: str, name: str, *script: Answer) -> AsyncGenerator[World]:
    async with open_house(url) as house:
        made = World(house, name, list(script), [])
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{rest:.*}", made.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield made
            house.settled()
        finally:
            await runner.cleanup()


def says(status: int, body: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(_: bytes) -> web.Response:
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=named, content_type="text/html")
        return web.json_response(body, status=status, headers=named)

    return answer


def in_a_second(_: bytes) -> web.Response:
    return web.json_response(
        {}, status=429, headers={"Retry-After": formatdate(time.time() + 1, usegmt=True)}
    )


def each(*codes: int) -> Answer:
    """Google: a gRPC code (0: fine) for each image."""
    rows = [{"error": {"code": code, "message": "Bad image data."}} if code else SAFE for code in codes]
    return says(200, {"responses": rows})


def azure(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


HIDDEN = azure("500", '{"code": 429, "message": "slow down"}')
SECOND = azure("429", "Please retry after 1 second.")
DAY = azure("429", "Try again in 86400 seconds")
NO_CALLS = {"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 12 days."}
LOADING = {"error": "Model m is currently loading", "estimated_time": 0.05}
NO_QUOTA = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
SIGNED_LATE = {"__type": "InvalidSignatureException", "message": "Signature expired: x"}
SLOW = {"__type": "ThrottlingException", "message": "Rate exceeded"}
MORE = {"__type": "ProvisionedThroughputExceededException", "message": "m"}


@dataclass(frozen=True)
class Case:
    """`images` asked; `spent` queries paid or possibly paid; `rejected` of the images; `error` ends the ask
    and the user reads `text`."""

    service: str
    script: tuple[Answer, ...]
    spent: int
    error: type[Exception] | None = None
    text: str = ""
    rejected: int = 0
    images: int = 3


CASES: dict[str, Case] = {
    "F1 429 with seconds": Case("custom_vision", (says(429, {}, Retry_After="0.1"),), 3),
    "F1 429 with a date": Case("custom_vision", (in_a_second,), 3),
    "F1 429 with a text": Case("custom_vision", (says(429, SECOND),), 3),
    "F1 429 with nothing": Case("clarifai", (says(429, {"status": {"code": 11005}}),), 3),
    "F2 429 for a day": Case(
        "custom_vision", (says(429, DAY),), 0, errors.QuotaExhausted, "asks to wait 86400 s"
    ),
    "F3 429 inside a 500": Case("custom_vision", (says(500, HIDDEN),), 3),
    "F4 throttling as 400": Case("rekognition", (says(400, SLOW), says(400, MORE)), 3),
    "F5 no quota": Case(
        "openai_moderation", (says(429, NO_QUOTA),), 0, errors.QuotaExhausted, "current quota"
    ),
    "F5 no calls left": Case(
        "custom_vision", (says(403, NO_CALLS),), 0, errors.QuotaExhausted, "Out of call volume"
    ),
    "F6 part of a batch": Case(
        "clarifai", (says(207, concepts(4, 10000, 30101, 40031)),), 4, rejected=1, images=4
    ),
    "F7 bad image data once": Case("google_vision", (each(0, 3, 0),), 3),
    "F7 bad image data always": Case(
        "google_vision", (each(0, 3, 0), each(3), each(3), each(3)), 2, rejected=1
    ),
    "F8 cannot fetch": Case("google_vision", (each(0, 14, 0),), 4),
    "F9 500, perhaps billed": Case("custom_vision", (says(500, {"code": "ErrorUnknown"}),), 4),
    "F10 no answer": Case("custom_vision", ("hang",), 4),
    "F11 reset": Case("custom_vision", ("reset",), 4),
    "F11 cut short": Case("custom_vision", ("truncated",), 4),
    "F21 numbers as they come": Case(
        "custom_vision", tuple(says(200, tags(*p)) for p in (("0.97", 1e-07), (1.0000001, -0.0), (1, 0))), 3
    ),
    "F21 not a number": Case(
        "custom_vision", (says(200, '{"predictions":[{"tagName":"a","probability":NaN}]}'),), 4
    ),
    "F22 no value": Case(
        "custom_vision", (says(200, {"predictions": [{"tagName": "a"}]}),), 4
    ),
    "F22 a name for a code": Case("clarifai", (says(429, {"status": {"code": "CONN_THROTTLED"}}),), 3),
    "F22 Code and Message": Case(
        "custom_vision", (says(400, {"Code": "BadRequestImageFormat", "Message": "m"}),), 2, rejected=1
    ),
    "F25 loading": Case("huggingface", (says(503, LOADING),), 3),
    "F25 not started": Case(
        "rekognition", (says(400, {"__type": "ThrottlingException"}, Retry_After="0.05"),), 3
    ),
    "F26 a page": Case("custom_vision", (says(502, "<html>Bad Gateway</html>"),), 4),
    "F26 nothing": Case("custom_vision", (says(200, ""),), 4),
    "F27 key refused": Case(
        "custom_vision", (says(200, tags(1, 0)), says(401, NO_CALLS | {"message": "Access denied"})), 1,
        errors.KeyRefused, "Access denied",
    ),
    "F27 clock": Case(
        "rekognition", (says(400, SIGNED_LATE),), 0,
        errors.KeyRefused, "Signature expired",
    ),
}  # fmt: skip


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


async def test_f15_f17_pixels_arrive_as_they_are(sqlite_url: str) -> None:
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
