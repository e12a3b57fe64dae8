"""Each worked connection of examples/connections, over HTTP, against a small server with that wire format: it
takes the request apart as the real one does, and refuses what the real one would."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from gateway_house import images, open_house
from PIL import Image

from app.contracts import Limits, Price
from app.gateway.query import Account, Gateway
from app.providers import make
from app.storage.answers import Answers
from app.storage.connections import LabelBook

EXAMPLES = Path(__file__).parents[2] / "examples" / "connections"


def brightness(file: bytes) -> float:
    """What all these models see."""
    with Image.open(io.BytesIO(file)) as image:
        return float(np.asarray(image.convert("RGB")).mean()) / 255


async def part(request: web.Request, name: str) -> bytes:
    form = await request.post()
    field = form[name]
    assert isinstance(field, web.FileField)
    assert field.filename
    return field.file.read()


async def torchserve(request: web.Request) -> Any:
    p = brightness(await request.read())
    return {"tabby": p / 2, "tiger_cat": (1 - p) / 2, "lynx": 0.125}


async def tf_serving(request: web.Request) -> Any:
    body = await request.json()
    assert set(body) == {"signature_name", "instances"}
    shares = [brightness(b64decode(instance["b64"], validate=True)) for instance in body["instances"]]
    return {"predictions": [[p / 2, (1 - p) / 2, 0.5] for p in shares]}


async def nudenet_classifier(request: web.Request) -> Any:
    files = (await request.json())["data"]
    shares = {name: brightness(b64decode(text, validate=True)) for name, text in files.items()}
    return {"prediction": {n: {"unsafe": p, "safe": 1 - p} for n, p in shares.items()}, "success": True}


async def nudenet_detector(request: web.Request) -> Any:
    p = brightness(await part(request, "f1"))
    boxes = [
        {"class": "FACE_FEMALE", "score": p, "box": [0, 0, 3, 3]},
        {"class": "FACE_FEMALE", "score": p / 2, "box": [1, 1, 3, 3]},
    ]
    return {"prediction": [boxes], "success": True}


async def nsfwjs(request: web.Request) -> Any:
    p = brightness(await part(request, "image"))
    rest = {"Drawing": 0.0, "Hentai": 0.0, "Porn": 0.0, "Sexy": 1 - p}
    rows = sorted({"Neutral": p, **rest}.items(), key=lambda row: -row[1])
    return [{"className": name, "probability": value} for name, value in rows]


async def open_nsfw(request: web.Request) -> Any:
    return {"score": brightness(await part(request, "image"))}


#: example -> (method and path, server, scores by brightness)
SERVERS: dict[
    str,
    tuple[str, Callable[[web.Request], Awaitable[Any]], Callable[[float], dict[str, float]]],
] = {
    "torchserve": (
        "/predictions/mobilenet",
        torchserve,
        lambda p: {"tabby": p / 2, "tiger_cat": (1 - p) / 2, "lynx": 0.125},
    ),
    "tf-serving": (
        "/v1/models/flowers/versions/3:predict",
        tf_serving,
        lambda p: {"daisy": p / 2, "rose": (1 - p) / 2, "tulip": 0.5},
    ),
    "nudenet-classifier": ("/sync", nudenet_classifier, lambda p: {"unsafe": p, "safe": 1 - p}),
    "nudenet-detector": ("/infer", nudenet_detector, lambda p: {"FACE_FEMALE": p}),
    "nsfwjs": (
        "/nsfw",
        nsfwjs,
        lambda p: {"Drawing": 0.0, "Hentai": 0.0, "Neutral": p, "Porn": 0.0, "Sexy": 1 - p},
    ),
    "open-nsfw": ("/", open_nsfw, lambda p: {"nsfw": p, "sfw": 1 - p}),
}


def test_each_has_a_server() -> None:
    assert set(SERVERS) == {path.stem for path in EXAMPLES.glob("*.json")}


@pytest.mark.parametrize("name", SERVERS)
async def test_it_reaches_its_server(sqlite_url: str, name: str) -> None:
    example = json.loads((EXAMPLES / f"{name}.json").read_text())
    path, serve, expected = SERVERS[name]
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path}")
        if asked[-1] != f"POST {path}":
            return web.json_response({"error": "not found"}, status=404)
        return web.json_response(await serve(request))

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    pixels = images(3)
    async with open_house(sqlite_url) as house:
        provider = make("http_json", url, example["model"], "", {})
        limits = Limits(**example["limits"])
        gateway = Gateway(
            Account("conn_1", "cred", provider, Price(0), limits), house.ledger, Answers(house.engine),
            house.rates, LabelBook(house.engine, "conn_1"), house.client, scope="job_1", fence=1,
        )  # fmt: skip
        answers = await gateway.ask(pixels)
    await runner.cleanup()
    assert not answers.rejected
    for image, row in zip(pixels, answers.scores, strict=True):
        seen = {label: p for label, p in zip(answers.labels, row, strict=True) if np.isfinite(p)}
        assert seen == pytest.approx(expected(float(image.mean()) / 255), abs=1e-5)
    assert len(asked) == (1 if limits.max_batch > 1 else 3)
