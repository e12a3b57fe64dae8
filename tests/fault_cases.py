"""What goes wrong with real services, case by case (F1 to F30): the replies, and what is to come of them.

`test_fault_cases` sends them through adapter and gateway, `test_fault_jobs` through whole jobs.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import blake2b
from typing import Any

from aiohttp import web

from app import errors

SECRET = "AKID:a-secret-word-0123456789"


def tags(*probabilities: object, version: str = "v1") -> dict[str, Any]:
    rows = [{"tagName": "ab"[n], "tagId": f"t{n}", "probability": p} for n, p in enumerate(probabilities)]
    return {"iteration": version, "predictions": rows}


def concepts(count: int, *codes: int, first: Sequence[float] = ()) -> dict[str, Any]:
    """A Clarifai answer; `codes` of the outputs, 10000 where none is given; `first`: scores of label a."""
    outputs = []
    for n in range(count):
        code = codes[n] if n < len(codes) else 10000
        p = first[n] if n < len(first) else 0.9
        rows = [{"id": "i1", "name": "a", "value": p}, {"id": "i2", "name": "b", "value": 1 - p}]
        data = {"concepts": rows} if code == 10000 else {}
        model = {"model_version": {"id": "v1"}}
        outputs.append({"status": {"code": code}, "input": {"id": f"q{n}"}, "model": model, "data": data})
    mixed = any(code != 10000 for code in codes)
    return {"status": {"code": 10010 if mixed else 10000}, "outputs": outputs}


def safe(level: float) -> dict[str, Any]:
    names = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")
    return {"safeSearchAnnotation": {"adult": names[min(4, int(5 * level))], "racy": "UNLIKELY"}}


SAFE = safe(0.7)

#: provider -> (model, a good answer to images with these shares)
SERVICES: dict[str, tuple[dict[str, Any], Callable[[list[float]], object]]] = {
    "custom_vision": ({"project_id": "p", "published_name": "n"}, lambda p: tags(p[0], 1 - p[0])),
    "clarifai": ({"model_id": "m"}, lambda p: concepts(len(p), first=p)),
    "google_vision": ({}, lambda p: {"responses": [safe(level) for level in p]}),
    "huggingface": ({"model": "m"}, lambda p: [{"label": "a", "score": p[0]}]),
    "rekognition": ({}, lambda p: {"ModerationLabels": [{"Name": "a", "Confidence": 100 * p[0]}]}),
    "openai_moderation": (
        {}, lambda p: {"model": "m", "results": [{"category_scores": {"sexual": p[0], "violence": 0.5}}]}
    ),
    "http_json": ({"layout": "dict"}, lambda p: {"a": p[0], "b": 1 - p[0]}),
}  # fmt: skip

WAITS = {"slow": 0.2, "hang": 1.0, "stall": 20.0}  # seconds
Answer = Callable[[bytes], web.Response] | str


def shares(name: str, body: bytes) -> list[float]:
    """One number in 0 to 1 for each image of a request: a function of its bytes."""
    parts = sent(name, body)
    return [int.from_bytes(blake2b(part, digest_size=2).digest(), "big") / 65_535 for part in parts]


#: provider -> the base64 texts of a JSON body; the body is the image itself where there is none.
TEXTS: dict[str, Callable[[Any], list[str]]] = {
    "clarifai": lambda body: [given["data"]["image"]["base64"] for given in body["inputs"]],
    "google_vision": lambda body: [asked["image"]["content"] for asked in body["requests"]],
    "huggingface": lambda body: [body["inputs"]],
    "rekognition": lambda body: [body["Image"]["Bytes"]],
    "openai_moderation": lambda body: [
        item["image_url"]["url"].removeprefix("data:image/png;base64,") for item in body["input"]
    ],
}


def sent(name: str, body: bytes) -> list[bytes]:
    """The image files of one request."""
    if name not in TEXTS:
        return [body]
    return [b64decode(text, validate=True) for text in TEXTS[name](json.loads(body))]


@dataclass
class Service:
    """One provider that answers by a script, then well. Answers that are words: `slow`, `hang` and `stall` (a
    good answer after a while, most too late), `reset`, `truncated`; `poison`: from now on,
    Google's "Bad image data" for what was the second image then."""

    name: str
    script: list[Answer]
    bodies: list[bytes] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    url: str = ""
    poison: float | None = None

    @property
    def model(self) -> dict[str, Any]:
        return SERVICES[self.name][0]

    def good(self, body: bytes) -> web.Response:
        return web.json_response(SERVICES[self.name][1](shares(self.name, body)))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.bodies.append(body)
        self.arrivals.append(time.monotonic())
        if self.poison is not None:
            return self._all_but_one(body)
        if not self.script:
            return self.good(body)
        answer = self.script.pop(0)
        if answer == "poison":
            self.poison = shares(self.name, body)[1]
            return self._all_but_one(body)
        if callable(answer):
            return answer(body)
        if answer in WAITS:
            await asyncio.sleep(WAITS[answer])
            return self.good(body)
        response = web.StreamResponse(headers={"Content-Length": "500"})
        if answer == "truncated":
            await response.prepare(request)
            await response.write(b'{"predictions":')
        assert request.transport is not None
        request.transport.abort()
        return response

    def _all_but_one(self, body: bytes) -> web.Response:
        bad = {"error": {"code": 3, "message": "Bad image data."}}
        rows = [bad if share == self.poison else safe(share) for share in shares(self.name, body)]
        return web.json_response({"responses": rows})

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[None]:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{rest:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()


def says(status: int, body: object, **headers: str) -> Callable[[bytes], web.Response]:
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


def zipped(_: bytes) -> web.Response:
    response = web.json_response(tags(0.6, 0.4))
    response.enable_compression(web.ContentCoding.gzip)
    return response


def chunked(_: bytes) -> web.Response:
    response = web.json_response(tags(0.7, 0.3))
    response.enable_chunked_encoding()
    return response


def each(*codes: int) -> Callable[[bytes], web.Response]:
    """Google: a gRPC code (0: fine) for each image."""
    rows = [{"error": {"code": code, "message": "Bad image data."}} if code else SAFE for code in codes]
    return says(200, {"responses": rows})


def azure(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


RENAMED = {
    "iteration": "v1",
    "predictions": [{"tagName": "c", "probability": 0.6}, {"tagName": "a", "probability": 0.4}],
}
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

    @property
    def batched(self) -> bool:
        """Whether the script is of requests with all the images."""
        return self.service in ("clarifai", "google_vision")


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
        "google_vision", ("poison",), 2, rejected=1
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
    "F26 gzip": Case("custom_vision", (zipped,), 3),
    "F26 chunked": Case("custom_vision", (chunked,), 3),
    "F26 accepted, later": Case("custom_vision", (says(202, ""),), 4),
    "F20 other labels": Case(
        "custom_vision", (says(200, RENAMED), says(200, {"predictions": RENAMED["predictions"][1:]})), 3
    ),
    "F29 slow": Case("custom_vision", ("slow",), 3),
    "F30 redirect": Case(
        "custom_vision", (says(307, {}, Location="http://127.0.0.1:9/"),), 0, errors.ConfigError, "HTTP 307"
    ),
    "F27 key refused": Case(
        "custom_vision", (says(200, tags(1, 0)), says(401, NO_CALLS | {"message": "Access denied"})), 1,
        errors.KeyRefused, "Access denied",
    ),
    "F27 clock": Case(
        "rekognition", (says(400, SIGNED_LATE),), 0,
        errors.KeyRefused, "Signature expired",
    ),
}  # fmt: skip
