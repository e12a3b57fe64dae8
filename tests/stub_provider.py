"""A loopback server that answers in Clarifai's form, keeps its own bill, and misbehaves on request."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

import numpy as np
from aiohttp import web

from app.contracts import Images, Provider
from app.gateway.encoding import encode
from app.providers import make

LABELS = ("safe", "unsafe")


def truth(png: bytes) -> tuple[float, float]:
    """The scores of an image: any function of its bytes will do."""
    p = np.float32(int.from_bytes(blake2b(png, digest_size=2).digest(), "big") / 65_535)
    return float(p), float(np.float32(1) - p)


def expected(images: Images) -> np.ndarray:
    return np.array([truth(png) for png in encode(images)], np.float32).astype(float)


class Stub:
    """`fault(n)` says what to do with the n-th request (0, 1, ...): None to answer, or one of the words
    below; `bad(png)` gives a status code for one image."""

    def __init__(self) -> None:
        self.fault: Callable[[int], str | None] = lambda n: None
        self.bad: Callable[[bytes], int | None] = lambda png: None
        self.delay: Callable[[int], float] = lambda n: 0.0
        self.version: Callable[[int], str] = lambda n: "v1"
        self.names: Callable[[int], tuple[str, ...]] = lambda n: LABELS
        self.requests = 0
        self.billed = Counter[bytes]()  # every image scored, whether or not the answer arrived
        self.arrivals: list[float] = []
        self.at_once = self.most_at_once = 0
        self.url = ""

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[Stub]:
        app = web.Application(client_max_size=2**28)
        app.router.add_post("/v2/models/m/outputs", self._outputs)
        app.router.add_get("/v2/models/m/output_info", self._info)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def provider(self, **options: object) -> Provider:
        return make("clarifai", self.url, {"model_id": "m"}, "key", options)

    @property
    def bill(self) -> int:
        return sum(self.billed.values())

    async def _info(self, request: web.Request) -> web.Response:
        concepts = [{"id": f"id_{name}", "name": name} for name in LABELS]
        return web.json_response(
            {"status": {"code": 10000}, "model": {"output_info": {"data": {"concepts": concepts}}}}
        )

    async def _outputs(self, request: web.Request) -> web.StreamResponse:
        n, self.requests = self.requests, self.requests + 1
        self.arrivals.append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(request, n)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request, n: int) -> web.StreamResponse:
        body = await request.json()
        inputs = [(given["id"], b64decode(given["data"]["image"]["base64"])) for given in body["inputs"]]
        fault = self.fault(n)
        await asyncio.sleep(self.delay(n))
        if fault in REFUSALS:
            status, code, headers = REFUSALS[fault]
            return web.json_response(
                {"status": {"code": code, "description": fault}}, status=status, headers=headers
            )
        outputs = [self._output(ident, png, n) for ident, png in inputs]
        if fault == "billed 500":
            return web.Response(status=500, text="<html>oops</html>", headers={"X-Request-Id": f"h{n}"})
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
        if fault == "truncated":
            response = web.StreamResponse(headers={"Content-Length": "5000"})
            await response.prepare(request)
            await response.write(b'{"status":')
            assert request.transport is not None
            request.transport.abort()
            return response
        failures = sum("concepts" not in output["data"] for output in outputs)
        code, status = (
            (10000, 200) if not failures else (10010, 207) if failures < len(outputs) else (10020, 400)
        )
        return web.json_response(
            {"status": {"code": code, "req_id": f"r{n}"}, "outputs": outputs}, status=status
        )

    def _output(self, ident: str, png: bytes, n: int) -> dict[str, Any]:
        output: dict[str, Any] = {
            "status": {"code": self.bad(png) or 10000},
            "input": {"id": ident},
            "model": {"model_version": {"id": self.version(n)}},
            "data": {},
        }
        if output["status"]["code"] == 10000:
            self.billed[png] += 1
            scores = dict(zip(LABELS, truth(png), strict=True))
            output["data"]["concepts"] = [
                {"id": f"id_{name}", "name": name, "value": scores.get(name, 0.5)} for name in self.names(n)
            ]
        return output


REFUSALS: dict[str | None, tuple[int, int, dict[str, str]]] = {
    "throttled": (429, 11005, {}),
    "throttled 0.2": (429, 11005, {"Retry-After": "0.2"}),
    "throttled for a day": (429, 11005, {"Retry-After": "86400"}),
    "no key": (401, 11009, {}),
    "quota": (429, 11004, {}),
    "free 500": (500, 90500, {}),
    "bad batch": (400, 30300, {}),
    "too much": (413, 40033, {}),
    "redirect": (302, 0, {"Location": "/v2/models/m/outputs"}),
}
