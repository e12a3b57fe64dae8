"""A source model in a thread of the test process: Clarifai's form, a bill and a log of its own.

It runs beside the workers, so that a test can ask at any moment what was really bought, and when.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image
from stub_provider import Stub

from app.gateway.encoding import digest


class Source(Stub):
    """`bought`: image -> the numbers of the requests it was billed in. `replied`: request -> when its reply
    was ready to leave (UTC epoch seconds)."""

    def __init__(self) -> None:
        super().__init__()
        self.bought: defaultdict[bytes, list[int]] = defaultdict(list)
        self.replied: dict[int, float] = {}
        self.clock: list[float] = []  # of every request that was read in full

    async def _answer(self, request: web.Request, n: int) -> web.StreamResponse:
        await request.read()
        self.clock.append(time.time())
        response = await super()._answer(request, n)
        if response.status == 200:
            self.replied[n] = time.time()
        return response

    def _output(self, ident: str, png: bytes, n: int) -> dict[str, Any]:
        output = super()._output(ident, png, n)
        if output["data"]:
            self.bought[digest(np.asarray(Image.open(io.BytesIO(png))))].append(n)
        return output

    def worst_second(self) -> int:
        """Most requests that arrived within any one second."""
        times = sorted(self.arrivals)
        worst = first = 0
        for last, at in enumerate(times):
            while times[first] <= at - 1.0:
                first += 1
            worst = max(worst, last - first + 1)
        return worst


@contextmanager
def running_source() -> Iterator[Source]:
    """A source model that serves until the block ends."""
    source, ready = Source(), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with source.serve():
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield source
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
