"""A source model in a thread of the test process: Clarifai's form, a bill and a log of its own.

It runs beside the workers, so that a test can ask at any moment what was really bought, and when.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image
from stub_provider import Stub

from app.gateway.encoding import digest

_TICK = 0.004  # seconds


class Source(Stub):
    """`bought`: image -> the numbers of the requests it was billed in. `replied`: request -> when its reply
    was ready to leave (UTC epoch seconds)."""

    def __init__(self) -> None:
        super().__init__()
        self.bought: defaultdict[bytes, list[int]] = defaultdict(list)
        self.replied: dict[int, float] = {}
        self.clock: list[float] = []  # of every request that was read in full
        self.looks: list[float] = []  # monotonic: this thread was awake, and had read all that had arrived

    async def look(self) -> None:
        while True:
            self.looks.append(time.monotonic())
            await asyncio.sleep(_TICK)

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
        """Most requests that surely arrived within any one second: on a busy machine this thread may sleep,
        and what it then reads may have arrived at any time since it was last awake."""
        times, looks = sorted(self.arrivals), list(self.looks)
        since = [looks[max(0, bisect_left(looks, at) - 1)] if looks else at for at in times]
        return max((bisect_left(times, at + 1.0) - first for first, at in enumerate(since)), default=0)


@contextmanager
def running_source() -> Iterator[Source]:
    """A source model that serves until the block ends."""
    source, ready = Source(), threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with source.serve():
            looking = asyncio.create_task(source.look())
            ready.set()
            await over.wait()
            looking.cancel()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield source
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()
