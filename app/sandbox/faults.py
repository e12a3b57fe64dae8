"""The switches that make the sandbox behave as badly as a real provider does on a bad day."""

import hashlib
import random
from collections import Counter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
RetryAfterStyle = Literal["seconds", "date", "text", "none", "huge"]


class Faults(BaseModel):
    """All switches, off by default. An unknown one is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    rate_limit_rps: NotNegative | None = None  # None: the provider's own; 0: unlimited
    monthly_quota: Count | None = None  # billable queries per key, then refused
    retry_after_style: RetryAfterStyle | None = None  # None: the provider's own
    key_refused: bool | tuple[str, ...] = False  # True: every key; else these keys
    latency_ms: Annotated[float, Field(ge=0, le=600_000)] = 0.0
    p_401: Probability = 0.0
    p_5xx: Probability = 0.0
    billing_on_5xx: bool = False
    p_reset: Probability = 0.0
    reset_point: Literal["before", "after"] = "after"  # the processing; "after" is billed
    p_hang: Probability = 0.0
    hang_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    p_wrong_json: Probability = 0.0
    p_truncated: Probability = 0.0
    per_input_failure_rate: Probability = 0.0
    poison: tuple[str, ...] = ()  # SHA-256, in hex, of images that never work
    score_noise: NotNegative = 0.0  # standard deviation on log-scores
    quantise_decimals: Annotated[int, Field(ge=0, le=17)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_value: Probability = 0.0
    jpeg_recompress_q: Annotated[int, Field(ge=1, le=100)] | None = None
    server_resize: Annotated[int, Field(ge=1, le=4096)] | None = (
        None  # side to which images are reduced first
    )
    version_flip_after_n: Count | None = None  # images scored by a model, then it has a new version

    @property
    def chances(self) -> bool:
        """Whether anything is left to chance."""
        shares = (self.p_401, self.p_5xx, self.p_reset, self.p_hang, self.p_wrong_json, self.p_truncated)
        return any(shares) or self.per_input_failure_rate > 0 or self.score_noise > 0

    def refuses(self, key: str) -> bool:
        """Whether `key` is switched off."""
        return self.key_refused if isinstance(self.key_refused, bool) else key in self.key_refused


class Luck:
    """The chances of one request: the same bytes at the same try fare the same, whatever runs beside them."""

    def __init__(self, faults: Faults, body_digest: bytes, attempt: int) -> None:
        self.faults = faults
        self._origin = f"{faults.seed}:{body_digest.hex()}:{attempt}"

    def strikes(self, name: str, probability: float, image: bytes = b"") -> bool:
        """Whether the fault `name` happens, to the whole request or to one image's digest."""
        return probability > 0 and self.stream(name, image).random() < probability

    def stream(self, name: str, image: bytes = b"") -> random.Random:
        """A generator of its own for each fault and image."""
        return random.Random(f"{self._origin}:{name}:{image.hex()}")


class FaultBox:
    """The switches in force, how often each body has come, and how many images each model has scored."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._attempts: Counter[bytes] = Counter()
        self._scored: Counter[str] = Counter()

    def set(self, faults: Faults) -> None:
        """Put other switches in force; the counts start again."""
        self.faults = faults
        self._attempts.clear()
        self._scored.clear()

    def luck(self, body: bytes) -> Luck:
        """Draw for one request. Bodies are hashed and tries counted only where chance has a say."""
        if not self.faults.chances:
            return Luck(self.faults, b"", 0)
        digest = hashlib.sha256(body).digest()
        self._attempts[digest] += 1
        return Luck(self.faults, digest, self._attempts[digest])

    def scored(self, model: str, count: int) -> None:
        """`model` has scored `count` images more."""
        self._scored[model] += count

    def generation(self, model: str) -> int:
        """0 at first, 1 once the model's version has flipped."""
        limit = self.faults.version_flip_after_n
        return int(limit is not None and self._scored[model] >= limit)
