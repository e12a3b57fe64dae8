"""Serving: the same `program.predict` and the same gateway as learning, behind an endpoint's name."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import numpy as np

from app.contracts import Images, Scores, TargetScores
from app.errors import (
    BadRequest,
    ConfigError,
    ProviderError,
    ReprogError,
    Throttled,
    TooLarge,
    Unavailable,
    Unusable,
)
from app.gateway.query import Gateway
from app.reprogramming import picture
from app.reprogramming import program as programs
from app.reprogramming.encoder import Kind
from app.reprogramming.program import Program
from app.storage.endpoints import Endpoints, LiveVersion
from app.storage.jobs import Jobs
from app.storage.keys import KeyRecord

PROGRAMS_KEPT = 64
DOWN_RETRY_SECONDS = 10.0
# Of an image that the event loop decodes itself: a millisecond.
SMALL_BYTES, SMALL_PIXELS = 2**17, 2**16


@dataclass(frozen=True)
class Prediction:
    """Target scores of a request's images, and what they cost."""

    labels: tuple[str, ...]
    scores: TargetScores
    queries: int
    cost_micros: int
    currency: str
    seconds: dict[str, float]  # decode | remote


class Predictor:
    """Answers for every endpoint of one process. Gateways and programs are kept between requests."""

    def __init__(
        self,
        endpoints: Endpoints,
        jobs: Jobs,
        gateway: Callable[[str, str], AbstractAsyncContextManager[Gateway]],  # scope, connection id
    ) -> None:
        self._endpoints, self._jobs, self._open = endpoints, jobs, gateway
        self._programs: OrderedDict[str, Program] = OrderedDict()
        self._gateways: dict[tuple[str, str], Gateway] = {}
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()

    async def reads(self, name: str) -> Kind | None:
        """The kind of record that the endpoint takes as JSON; None: images. Raises NotFound."""
        program = await self._program(await self._live(name))
        return program.encoder.kind if program.encoder else None

    async def predict(
        self, name: str, inputs: Sequence[object], caller: KeyRecord | None = None
    ) -> Prediction:
        """`inputs` are encoded images (bytes) or records as JSON values; `caller` is the key that is charged
        too. Raises NotFound, BadRequest (unreadable image, record of another shape), BudgetExhausted
        (cap of endpoint, connection or key), Unusable (provider down or refusing)."""
        live = await self._live(name)
        program = await self._program(live)
        started = time.perf_counter()
        images = _decode_small(inputs, program)
        if images is None:
            images = await asyncio.to_thread(_decode, inputs, program)
        decoded = time.perf_counter()
        gateway = await self._gateway(live)
        price = gateway.account.price  # what the ledger books, too
        payer = caller.account(price.currency) if caller else None
        asked = _Counted(gateway, program.source_labels, payer)
        try:
            scores = await programs.predict(program, images, asked.query)
        except ConfigError as error:
            raise _unusable(error, 60.0) from error
        except (Unavailable, Throttled) as error:
            raise _unusable(error, error.retry_after or DOWN_RETRY_SECONDS) from error
        took = {"decode": decoded - started, "remote": time.perf_counter() - decoded}
        return Prediction(
            program.target_labels, scores, asked.sent, asked.sent * price.micros, price.currency, took
        )

    async def close(self) -> None:
        await self._stack.aclose()

    async def _live(self, name: str) -> LiveVersion:
        return self._endpoints.lately(name) or await asyncio.to_thread(self._endpoints.live, name)

    async def _program(self, live: LiveVersion) -> Program:
        key = live.checkpoint_id
        if key not in self._programs:
            blob = await asyncio.to_thread(self._jobs.program, key)
            self._programs[key] = await asyncio.to_thread(programs.from_bytes, blob)
            if len(self._programs) > PROGRAMS_KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    async def _gateway(self, live: LiveVersion) -> Gateway:
        key = (live.endpoint_id, live.connection_id)
        async with self._lock:
            if key not in self._gateways:
                self._gateways[key] = await self._stack.enter_async_context(self._open(*key))
            return self._gateways[key]


class _Counted:
    """A Query that counts the images that went over the wire, and refuses to guess for a missing answer."""

    def __init__(self, gateway: Gateway, labels: tuple[str, ...], payer: str | None) -> None:
        self._gateway, self._labels, self._payer, self.sent = gateway, labels, payer, 0

    async def query(self, images: Images) -> Scores:
        answers = await self._gateway.ask(images, payer=self._payer)
        self.sent += answers.sent
        if answers.rejected:
            error: ProviderError = next(iter(answers.rejected.values()))
            raise BadRequest(
                f"The provider refused the image: {error.detail}", code="image_rejected", hint=error.hint
            )
        return answers.under(self._labels)


def _decode_small(inputs: Sequence[object], program: Program) -> Images | None:
    """`_decode` of one small image, where a hop to a thread would cost more; None: let a thread do it."""
    value, (height, width) = inputs[0], program.canonical
    if len(inputs) > 1 or not isinstance(value, bytes) or len(value) > SMALL_BYTES:
        return None
    if program.encoder is not None or height * width > SMALL_PIXELS:
        return None
    try:
        image = picture.decode(value, max_pixels=SMALL_PIXELS, background=program.background)
        return picture.fit(image, height, width)[None]
    except TooLarge:
        return None


def _decode(inputs: Sequence[object], program: Program) -> Images:
    """(n, h, w, 3) at the program's size. Raises BadRequest naming the input that cannot be read."""
    images: list[Images] = []
    for n, value in enumerate(inputs):
        try:
            images.append(picture.fit(_image(value, program), *program.canonical))
        except ReprogError as error:
            if len(inputs) > 1:
                error.param = f"inputs[{n}]"
            raise
    return np.stack(images)


def _image(value: object, program: Program) -> Images:
    """An encoded image as it is; a record as its encoder draws it. Raises BadRequest."""
    encoder = program.encoder
    if not isinstance(value, bytes):
        if encoder is None:
            raise BadRequest(
                "This endpoint takes images.",
                code="wrong_shape",
                hint="Send an image, or its bytes in base64.",
            )
        return encoder.image(encoder.read(value))
    image = picture.decode(value, background=program.background)
    if encoder is not None and image.shape[:2] != encoder.size:
        height, width = encoder.size
        raise BadRequest(
            f"This endpoint takes a {encoder.kind}, not an image.",
            code="wrong_shape",
            hint=f'Send JSON: {{"inputs": [...]}}; or the {width} x {height} picture of the data set.',
        )
    return image


def _unusable(error: ProviderError, retry_after: float) -> Unusable:
    return Unusable(
        f"The source model cannot answer now: {error.detail}",
        retry_after=retry_after,
        code=error.code,
        hint=error.hint or "Try again after the time in Retry-After.",
    )
