"""The way every paid request goes in either wire format: key, rate, quota, chance, work, bill, reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.sandbox.bill import UNKNOWN_KEY, Bill
from app.sandbox.classifiers import Name, Size
from app.sandbox.faults import FaultBox, Luck
from app.sandbox.images import Limits
from app.sandbox.rates import RateWindow
from app.sandbox.replies import ResetReply, TruncatedReply, wrong_json
from app.sandbox.scoring import Outcome, Scored, score

Reason = Literal["no_key", "wrong_key", "throttled", "quota", "too_large", "server_error", "no_model"]
DEFAULT_KEY_PREFIX = "sandbox-"


class RefusedError(Exception):
    """The request gets no scores; the provider words the reply."""

    def __init__(self, reason: Reason, detail: str = "", *, limit: float = 0.0, pick: int = 0) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.limit = limit  # requests per second, of a throttled one
        self.pick = pick  # 0..2, which of the provider's server errors


class ResetError(Exception):
    """The connection is to be dropped without a reply."""


@dataclass(frozen=True)
class Model:
    """One model as clients name it: `line` is its line on the bill."""

    id: str
    line: str
    classifier: Name
    size: Size
    price_micros: int


@dataclass(frozen=True)
class Call:
    """One request as its provider reads it before the body: whose, for what, and the rate it falls under."""

    key: str | None
    model: Model | None
    line: str
    operation: str
    default_rps: float
    max_body: int


@dataclass(frozen=True)
class Visit:
    """A request that passed the desk, with the chances it drew."""

    key: str
    model: Model
    body: bytes
    luck: Luck


class Desk:
    """Shared by all providers of one sandbox. Runs on the event loop; only the scoring runs in threads."""

    def __init__(
        self,
        keys: tuple[str, ...] = (),
        rate_limit_rps: float | None = None,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bill = Bill()
        self.box = FaultBox()
        self._keys = frozenset(keys)
        self._rate_limit_rps = rate_limit_rps
        self._clock = clock
        self._windows: dict[tuple[str, str], RateWindow] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")

    async def serve(
        self,
        request: Request,
        call: Call,
        work: Callable[[Visit], Awaitable[Response]],
        refuse: Callable[[RefusedError], Response],
    ) -> Response:
        """Take one request through. `work` scores and words the reply, `refuse` words a refusal."""
        key = call.key if call.key is not None and self._knows(call.key) else UNKNOWN_KEY
        try:
            visit = await self._admit(request, call, key)
            response = await work(visit)
            if response.status_code != 200:
                self.bill.failed(key, call.line)
            return self._deliver(visit, response)
        except RefusedError as error:
            if error.reason == "throttled":
                self.bill.throttled(key, call.line)
            else:
                self.bill.failed(key, call.line)
            return refuse(error)
        except ResetError:
            self.bill.failed(key, call.line)
            return ResetReply()

    async def score(
        self, visit: Visit, fetches: list[Callable[[], bytes]], limits: Limits, generation: int
    ) -> list[Outcome]:
        """Score images in worker threads and charge those that got scores; outcomes in the order asked.

        `generation` is 0 for a model's first version and 1 for the one after a version change.
        """
        model = visit.model
        loop = asyncio.get_running_loop()
        outcomes = await asyncio.gather(
            *(
                loop.run_in_executor(
                    self._pool, score, fetch, limits, model.classifier, model.size, generation, visit.luck
                )
                for fetch in fetches
            )
        )
        digests = [outcome.digest for outcome in outcomes if isinstance(outcome, Scored)]
        self.bill.charge(visit.key, model.line, digests, model.price_micros)
        self.box.scored(model.line, len(digests))
        return outcomes

    def reset_bill(self) -> None:
        """Start a new bill; requests under way are charged to it."""
        self.bill = Bill()

    def opens(self, key: str) -> bool:
        """Whether `key` is accepted at present."""
        return self._knows(key) and not self.box.faults.refuses(key)

    async def _admit(self, request: Request, call: Call, key: str) -> Visit:
        """Everything before the work. The rate is judged at arrival, the reply waits for the whole body."""
        now = self._clock()
        self.bill.arrived(key, call.line, now)
        refusal = self._judge(call, key, now)
        body = await _read(request, call.max_body)
        if refusal is not None:
            raise refusal
        luck = self.box.luck(body)
        faults = luck.faults
        if luck.strikes("401", faults.p_401):
            raise RefusedError("wrong_key")
        if faults.latency_ms:
            await asyncio.sleep(faults.latency_ms / 1000)
        if luck.strikes("hang", faults.p_hang):
            await asyncio.sleep(faults.hang_seconds)
        if faults.reset_point == "before" and luck.strikes("reset", faults.p_reset):
            raise ResetError
        if not faults.billing_on_5xx:
            _maybe_server_error(luck)
        assert call.model is not None
        return Visit(key, call.model, body, luck)

    def _judge(self, call: Call, key: str, now: float) -> RefusedError | None:
        """Key, rate, model and quota, in a provider's order."""
        faults = self.box.faults
        if call.key is None:
            return RefusedError("no_key")
        if key == UNKNOWN_KEY or faults.refuses(key):
            return RefusedError("wrong_key")
        chosen = (faults.rate_limit_rps, self._rate_limit_rps, call.default_rps)
        limit = next(rate for rate in chosen if rate is not None)
        window = self._windows.setdefault((key, call.operation), RateWindow())
        if not window.admit(now, limit):
            return RefusedError("throttled", limit=limit)
        if call.model is None:
            return RefusedError("no_model")
        if faults.monthly_quota is not None and self.bill.billed(key) >= faults.monthly_quota:
            return RefusedError("quota")
        return None

    def _deliver(self, visit: Visit, response: Response) -> Response:
        """The reply after the work, or what chance makes of it."""
        luck, faults = visit.luck, visit.luck.faults
        _maybe_server_error(luck)
        if faults.reset_point == "after" and luck.strikes("reset", faults.p_reset):
            raise ResetError
        if luck.strikes("wrong_json", faults.p_wrong_json):
            return wrong_json(luck.stream("shape").randrange(3))
        if luck.strikes("truncated", faults.p_truncated):
            return TruncatedReply(bytes(response.body), response.status_code)
        return response

    def _knows(self, key: str) -> bool:
        return key in self._keys if self._keys else key.startswith(DEFAULT_KEY_PREFIX)


def _maybe_server_error(luck: Luck) -> None:
    """One draw decides for before and after the work; `billing_on_5xx` says which of the two raises."""
    if luck.strikes("5xx", luck.faults.p_5xx):
        raise RefusedError("server_error", pick=luck.stream("5xx kind").randrange(3))


async def _read(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes; raises RefusedError beyond."""
    chunks: list[bytes] = []
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > limit:
                raise RefusedError("too_large", f"more than {limit} bytes")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise ResetError from error
    return b"".join(chunks)
