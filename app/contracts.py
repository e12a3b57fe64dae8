"""The newcomer's first page: array types, records and protocols.

Letters: N images, C candidates, d parameters, K source labels, T target labels, R views (queries per
prediction). Images are uint8 outside the transform; scores are float64 with NaN for a censored label
(one the provider did not return: known only to be small, never zero).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.errors import ProviderError

Images: TypeAlias = NDArray[np.uint8]  # (N, H, W, 3) RGB
Scores: TypeAlias = NDArray[np.float64]  # (N, K), NaN = censored
TargetScores: TypeAlias = NDArray[np.float64]  # (N, T), rows sum to 1
Labels: TypeAlias = NDArray[np.intp]  # (N,)
Vector: TypeAlias = NDArray[np.float64]  # (d,)
Losses: TypeAlias = NDArray[np.float64]  # (C,)
Arrays: TypeAlias = dict[str, NDArray[Any]]

#: The black box as learning and serving see it. Columns follow the label tuple it was made for.
Query: TypeAlias = Callable[[Images], Awaitable[Scores]]

ScoreKind = Literal["probability", "independent", "logit", "percent", "severity", "likelihood", "label"]


@dataclass(frozen=True)
class Price:
    """Money per query in integer micro-units (1_000_000 = 1 unit of `currency`)."""

    micros: int
    currency: str = "USD"


@dataclass(frozen=True)
class Limits:
    """What the account may do: requests per second, requests at once, images per request."""

    requests_per_second: float = 10.0
    concurrency: int = 16
    max_batch: int = 1


@dataclass(frozen=True)
class WireRequest:
    """One HTTP request, ready to send. `headers` carry the secret: never log them."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class WireReply:
    """One HTTP reply, read in full. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


#: One image's outcome: label -> score, or why there is none. Labels absent from the mapping are censored.
Outcome: TypeAlias = Mapping[str, float] | ProviderError


@dataclass(frozen=True)
class Reply:
    """A provider's reply, translated. `outcomes` are in the order of the images asked."""

    outcomes: tuple[Outcome, ...]
    version: str = ""  # the model version as answered; "" when the provider does not say
    request_id: str | None = None
    billed: int | None = None  # images that the provider says it bills; None: it does not say


@dataclass(frozen=True)
class ProviderInfo:
    """Facts of a source model. `cache_scope` names everything but version and bytes that decides an answer:
    provider, endpoint, model and request options; it holds no secret."""

    provider: str
    cache_scope: str
    labels: tuple[str, ...] = ()  # empty: learned from answers
    score_kind: ScoreKind = "probability"
    input_size: int = 224
    max_batch: int = 1
    max_image_bytes: int = 4_000_000
    min_side: int = 1
    enlarges_below: int = 0  # sides below are accepted, and stretched by the service in its own way


class Provider(Protocol):
    """Pure translation between images and one wire format. No I/O, no clock, no retries."""

    @property
    def info(self) -> ProviderInfo: ...

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """One request for 1 <= len(pngs) <= info.max_batch images."""
        ...

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Translate; raises ProviderError when the whole request failed."""
        ...

    def labels_request(self) -> WireRequest | None:
        """A free request that lists the model's labels, when the provider has one."""
        ...

    def labels(self, reply: WireReply) -> tuple[str, ...]:
        """Labels from the answer to `labels_request`; raises ProviderError."""
        ...


# ---------------------------------------------------------------- optimisers: vectors in, vectors out


@dataclass(frozen=True)
class OptState:
    """An optimiser between steps. A checkpoint is this record; `memory` holds momenta and the like."""

    step: int
    seed: int
    x: Vector
    memory: Arrays = field(default_factory=dict[str, NDArray[Any]])


class Optimiser(Protocol):
    """Zeroth-order minimiser. Pure: `ask(state)` twice gives the same candidates; `tell` returns a new
    state. Randomness comes from (state.seed, state.step)."""

    def start(self, x: Vector, seed: int) -> OptState: ...

    def ask(self, state: OptState) -> NDArray[np.float64]:
        """(C, d) candidates whose losses `tell` needs, in this order."""
        ...

    def tell(self, state: OptState, losses: Losses) -> OptState:
        """Raises ValueError for a loss that is not finite."""
        ...


# ---------------------------------------------------------------- methods: programs in, scores out

#: One view: how a target image becomes a source image. See app.reprogramming.transform.View.
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Ask:
    """What a method wants scored next: every view on every listed image of one split (V * n queries)."""

    views: tuple[Any, ...]  # tuple[View, ...]
    rows: NDArray[np.intp]  # (n,) indices into the split
    split: Split = "train"
    purpose: str = "step"  # probe | step | round | select | evaluate: shown to the user

    @property
    def queries(self) -> int:
        return len(self.views) * len(self.rows)


@dataclass(frozen=True)
class MethodState:
    """A method between asks; a checkpoint is this record (npz + JSON, never pickle)."""

    step: int
    phase: str
    meta: Mapping[str, Any]  # JSON values only
    arrays: Mapping[str, NDArray[Any]]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])  # of the last tell


# ---------------------------------------------------------------- paid state


@dataclass(frozen=True)
class Cost:
    """A scope's money and queries. Money in micro-units; cap None = no cap."""

    spent: int
    reserved: int
    cap: int | None
    queries_spent: int
    queries_reserved: int
    queries_cap: int | None
    unknown_queries: int = 0
    cached_queries: int = 0
    retried_queries: int = 0


@dataclass(frozen=True)
class Reserve:
    """The intent to ask for `images`; see `app.storage.budget.Ledger.reserve`."""

    scope: str
    connection_id: str
    fence: int
    images: int
    price_micros: int
    purpose: str
    keep_micros: int = 0
    keep_queries: int = 0
    retried: int = 0
    at_once: int = 0  # requests of the account that may be under way with this one; 0: any number
    keys: Sequence[tuple[bytes, bytes]] = ()  # claim and answer's key of each image
    payer: str | None = None  # a key's id


@dataclass(frozen=True)
class Settle:
    """What became of an attempt; see `app.storage.budget.Ledger.settle`."""

    attempt_id: int
    answers: Sequence[tuple[bytes, NDArray[np.float32]]]
    billed: int
    unknown: int
    outcome: str
    http_status: int | None = None
    request_id: str | None = None
    code: str | None = None
    model_version: str | None = None  # as answered


class AnswerStore(Protocol):
    """Paid answers by 20-byte key; float32 scores in the connection's append-only label order."""

    @property
    def by_file(self) -> bool:
        """Whether some answers are keyed by the image file sent (an older release's), not by its pixels."""
        ...

    @property
    def near(self) -> bool:
        """Whether a look at some keys takes less time than a hop to a thread: no server is asked."""
        ...

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, NDArray[np.float32]]: ...


class RateLimiter(Protocol):
    """GCRA on the database clock, shared by all workers of one credential."""

    def take(self, credential: str) -> float | None:
        """`acquire` without blocking: from slots this process holds already; None when there is none."""
        ...

    def acquire(self, credential: str, requests_per_second: float) -> float:
        """Take one slot; returns the seconds to wait before sending."""
        ...

    def grace(self, requests_per_second: float) -> float:
        """How late a slot may still be used, in seconds."""
        ...

    def postpone(self, credential: str, seconds: float) -> None:
        """No slot of this credential before now + seconds (Retry-After, for all workers)."""
        ...


class JobRunner(Protocol):
    """Decides who runs which job, nothing else. At most one segment of a job runs at a time."""

    def launch(self, work: Callable[[str], bool], on_error: Callable[[str, Exception], None]) -> None:
        """Start working; `work(job_id)` runs one segment and returns whether more is to do. What it
        raises goes to `on_error(job_id, error)`, and the job rests until it is enqueued again."""
        ...

    def enqueue(self, job_id: str) -> None:
        """Have the job run, now or after what runs of it now; harmless to repeat."""
        ...

    def cancel(self, job_id: str) -> None:
        """Drop the job from the queue where it has not started."""
        ...

    def running(self) -> list[str]: ...

    def close(self, timeout: float = 10) -> None: ...
