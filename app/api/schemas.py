"""The wire shapes of the resources, apart from the job (`app.jobs.spec` in, `app.api.views` out)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.contracts import Limits, Price
from app.jobs.spec import Money, micros
from app.storage.events import TYPES as EVENT_TYPES
from app.storage.keys import SCOPES
from app.storage.webhooks import matches

Item = TypeVar("Item")
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]  # RFC 3339, UTC
Name = Annotated[str, Field(min_length=1, max_length=200)]
Scope = Literal["read", "write", "spend", "predict", "admin"]
EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
assert set(SCOPES) == set(Scope.__args__)


class Body(BaseModel):
    """A request: a member we do not know is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[Item]):
    """One page of a list; `next_cursor` goes into `after`."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next_cursor: str | None


# ---------------------------------------------------------------- connections


class PriceBody(Body):
    """What the provider asks for 1,000 queries; 0 is allowed."""

    per_1000: Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,6})?$", examples=["1.20"])]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"

    @field_validator("per_1000")
    @classmethod
    def _whole(cls, value: str) -> str:
        if micros(value) % 1000:
            raise ValueError("must have at most 3 decimals: money is kept in millionths per query")
        return value

    def price(self) -> Price:
        return Price(micros(self.per_1000) // 1000, self.currency)


class LimitsBody(Body):
    """What the account may do."""

    requests_per_second: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] = 10.0
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    max_batch: Annotated[int, Field(ge=1, le=1024, description="Images per request.")] = 1

    def limits(self) -> Limits:
        return Limits(self.requests_per_second, self.concurrency, self.max_batch)


SecretRef = Annotated[
    str,
    Field(
        max_length=1000,
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:/[^\x00]+)$",
        description="`env:NAME` or `file:/path`, read where the service runs. Needs `admin`.",
    ),
]
Secret = Annotated[str, Field(min_length=1, max_length=16_000, description="Stored encrypted, never shown.")]


class _Secretive(Body):
    secret: Secret | None = None
    secret_ref: SecretRef | None = None

    @field_validator("secret")
    @classmethod
    def _sendable(cls, value: str | None) -> str | None:
        if value is not None and (not value.isprintable() or not value.isascii()):
            raise PydanticCustomError("secret_characters", "must be printable ASCII")
        return value

    @field_validator("secret_ref")
    @classmethod
    def _not_ours(cls, value: str | None) -> str | None:
        if value is not None and value.upper().startswith("ENV:REPROG_"):
            raise ValueError("must not name a setting of this service")
        return value

    @model_validator(mode="after")
    def _one(self) -> _Secretive:
        if self.secret is not None and self.secret_ref is not None:
            raise ValueError("give `secret` or `secret_ref`, not both")
        return self


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    return value.rstrip("/")


Url = Annotated[str, Field(min_length=1, max_length=2000, examples=["https://api.clarifai.com"])]


_TERMS = (
    "Required for a public host: you have read the provider's terms and may send it altered copies of your "
    "images and use the answers. Loopback and private addresses need none."
)


class ConnectionBody(_Secretive):
    """A remote account and one source model."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "nsfw",
                    "provider": "clarifai",
                    "base_url": "https://api.clarifai.com",
                    "model": {"user_id": "clarifai", "app_id": "main", "model_id": "nsfw-recognition"},
                    "secret": "...",
                    "price": {"per_1000": "1.20", "currency": "USD"},
                    "limits": {"requests_per_second": 10, "concurrency": 16, "max_batch": 32},
                    "terms_acknowledged": True,
                }
            ]
        },
    )

    name: Name
    provider: Annotated[str, Field(min_length=1, max_length=40)]
    base_url: Url
    model: Annotated[dict[str, Any], Field(default_factory=dict, description="The provider's own names.")]
    options: Annotated[
        dict[str, Any], Field(default_factory=dict, description="The provider's extra settings.")
    ]
    price: PriceBody | None = Field(None, description="Required; null or absent is 422 `price_unknown`.")
    limits: Annotated[LimitsBody, Field(default_factory=LimitsBody)]
    budget: Money | None = Field(None, description="Most money that all of the account's queries may cost.")
    terms_acknowledged: bool = Field(False, description=_TERMS)

    _url = field_validator("base_url")(_http_url)

    @field_validator("price")
    @classmethod
    def _known(cls, value: PriceBody | None) -> PriceBody:
        if value is None:
            raise PydanticCustomError("price_unknown", "is not known, and a budget needs it")
        return value

    @model_validator(mode="before")
    @classmethod
    def _stated(cls, value: object) -> object:
        return {"price": None, **value} if isinstance(value, dict) else value  # so that _known runs


class ConnectionPatch(_Secretive):
    """Members that are given are changed."""

    name: Name | None = None
    base_url: Url | None = None
    price: PriceBody | None = None
    limits: LimitsBody | None = None
    budget: Money | None = Field(None, description="null: no cap.")
    terms_acknowledged: bool = Field(False, description=_TERMS)

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else _http_url(value)


class SecretState(BaseModel):
    set: bool
    last4: str | None
    ref: str | None


class PriceView(BaseModel):
    per_1000: str
    currency: str


class LimitsView(BaseModel):
    requests_per_second: float
    concurrency: int
    max_batch: int


class Connection(BaseModel):
    id: str
    object: Literal["connection"] = "connection"
    name: str
    provider: str
    base_url: str
    model: dict[str, Any]
    options: dict[str, Any]
    secret: SecretState
    price: PriceView
    limits: LimitsView
    budget: Money | None
    spent: Money
    labels_known: int
    model_version: str | None
    created_at: Time


class ConnectionTestBody(Body):
    """Nothing: one billable query. More is sent only where it is asked for."""

    probes: bool = Field(
        default=False, description="Two queries more: does the service seem to resize or re-compress images?"
    )
    repeats: Annotated[
        int, Field(ge=0, le=20, description="The same image again, past the cache: do answers vary?")
    ] = 0


class ConnectionTest(BaseModel):
    model_config = ConfigDict(extra="allow")

    object: Literal["connection.test"] = "connection.test"
    ok: Literal[True] = True
    labels: list[str]
    latency_ms: float
    model_version: str | None
    score_kind: str = Field(description="As the connection says.")
    score_kind_measured: str | None = Field(None, description="As the answer looks.")
    truncated: bool | None = Field(None, description="Whether the answer leaves labels out.")
    decimals: int | None = Field(None, description="Of the scores; null: full precision.")
    clock_skew_seconds: int | None = Field(None, description="How far the service's clock is ahead of ours.")
    seems_to_resize: bool | None = Field(None, description="With `probes`; null: cannot be told.")
    seems_to_recompress: bool | None = Field(None, description="With `probes`; null: cannot be told.")


class Labels(BaseModel):
    object: Literal["connection.labels"] = "connection.labels"
    connection_id: str
    labels: list[str]
    count: int


# ---------------------------------------------------------------- data sets


class DatasetView(BaseModel):
    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    classes: list[str]
    counts: dict[str, dict[str, int]] = Field(description="split -> class -> images")
    items: int
    content_sha256: str
    seed: int
    report: dict[str, Any] | None = Field(description="null in lists; see `GET /v1/datasets/{id}/report`.")
    created_at: Time
    links: dict[str, str]


class DatasetItem(BaseModel):
    model_config = ConfigDict(extra="allow")

    object: Literal["dataset.item"] = "dataset.item"
    n: int
    label: str
    split: str
    image: str


# ---------------------------------------------------------------- jobs


class JobLimitsPatch(Body):
    """Raised (or lowered, not below what is spent)."""

    max_queries: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    budget: Money | None = None
    deadline: datetime | None = None


class JobPatch(Body):
    """Members that are given are changed."""

    name: Name | None = None
    metadata: dict[str, Any] | None = None
    limits: JobLimitsPatch | None = None


class CloneBody(Body):
    """What is to differ from the job cloned."""

    name: Name | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class CostView(BaseModel):
    spent: Money
    reserved: Money
    remaining: Money | None
    billable_queries: int
    reserved_queries: int
    remaining_queries: int | None
    unknown_queries: int
    cached_queries: int
    retried_queries: int


class JobView(BaseModel):
    id: str
    object: Literal["reprogramming.job"] = "reprogramming.job"
    name: str
    status: Literal[
        "validating",
        "queued",
        "running",
        "pausing",
        "paused",
        "cancelling",
        "succeeded",
        "failed",
        "cancelled",
    ]
    status_reason: str | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    connection_id: str
    dataset_id: str | None
    seed: int
    method: dict[str, Any]
    limits: dict[str, Any]
    metadata: dict[str, Any]
    publish: dict[str, Any] | None
    progress: dict[str, Any]
    cost: CostView
    metrics: dict[str, Any]
    error: dict[str, Any] | None
    links: dict[str, str]


class EventView(BaseModel):
    id: str
    object: Literal["event"] = "event"
    seq: int
    job_id: str
    type: str
    data: dict[str, Any]
    created_at: Time


class QueryLine(BaseModel):
    """One request to the provider."""

    id: int
    object: Literal["attempt"] = "attempt"
    purpose: str
    images: int
    billed: int
    outcome: str
    http_status: int | None
    code: str | None
    request_id: str | None
    price: Money
    cost: Money
    sent_at: Time
    done_at: Time | None


class CheckpointView(BaseModel):
    id: str
    object: Literal["checkpoint"] = "checkpoint"
    job_id: str
    step: int
    metrics: dict[str, Any]
    queries: int
    created_at: Time


class EvaluationView(BaseModel):
    """Another head on a job's program; `checkpoint_id` can be published."""

    id: str
    object: Literal["evaluation"] = "evaluation"
    job_id: str
    checkpoint_id: str
    of: Annotated[str, Field(description="The checkpoint whose views it uses.")]
    mapping: dict[str, Any]
    fused: bool
    metrics: dict[str, Any]
    queries: int
    created_at: Time


class MetricPoint(BaseModel):
    model_config = ConfigDict(extra="allow")

    x: float
    step: int
    queries: int
    cost: Money
    time: Time


class Curve(BaseModel):
    object: Literal["metrics"] = "metrics"
    job_id: str
    x: Literal["queries", "cost", "time"]
    data: list[MetricPoint]
    forecast: Annotated[
        list[dict[str, Any]] | None, Field(description="What more queries would buy; null: too early.")
    ]


# ---------------------------------------------------------------- endpoints


class EndpointLimits(Body):
    """Caps on what the endpoint may spend from now on and before."""

    budget: Money | None = None
    max_queries: Annotated[int, Field(ge=0, le=2**53)] | None = None


class EndpointBody(Body):
    name: EndpointName
    job_id: Annotated[str, Field(max_length=40)]
    checkpoint_id: Annotated[str, Field(max_length=40)] | None = None
    overwrite: bool = False
    limits: EndpointLimits | None = None


class CanaryBody(Body):
    """Fixed queries on a schedule; the endpoint is `degraded` while the answers differ from the first ones.
    Setting it takes these anew."""

    queries: Annotated[int, Field(ge=1, le=128, description="In each run.")] = 4
    every_seconds: Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)] = 3600
    budget: Money | None = Field(None, description="Most that all its runs may cost; null: no cap.")
    tolerance: Annotated[
        float, Field(gt=0, le=1, description="Largest change of a score, as a share of its range.")
    ] = 0.02


class EndpointPatch(Body):
    """Members that are given are changed; `version` rolls back (or forward); `canary` null takes it away."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    enabled: bool | None = None
    limits: EndpointLimits | None = None
    canary: CanaryBody | None = None


class CanaryView(BaseModel):
    state: Literal["waiting", "ok", "degraded"]
    queries: int
    every_seconds: float
    tolerance: float
    budget: Money | None
    cost: CostView
    last: dict[str, Any] | None = Field(
        description="The last run: at, moved, queries, model_version; or error."
    )
    next_at: Time


class VersionView(BaseModel):
    object: Literal["endpoint.version"] = "endpoint.version"
    version: int
    job_id: str
    checkpoint_id: str
    connection_id: str
    created_at: Time


class InputView(BaseModel):
    """What predict takes: an image, or a record as JSON under `inputs`."""

    kind: Literal["image", "table", "series", "sequence"]
    columns: list[dict[str, Any]] | None = Field(
        description="Of a table: name, type (`number` or `category`), values of a category."
    )
    length: int | None = Field(description="Values of a series, symbols of a sequence.")
    fixed: bool | None = Field(description="Whether another length is refused.")
    example: Any = Field(description="One that is read; null for images.")


class EndpointView(BaseModel):
    id: str
    object: Literal["endpoint"] = "endpoint"
    name: str
    version: int
    enabled: bool
    status: Literal["ok", "degraded", "disabled"] = Field(description="`degraded`: its canary says so.")
    canary: CanaryView | None
    input: InputView
    job_id: str
    checkpoint_id: str
    connection_id: str
    limits: dict[str, Any]
    cost: CostView
    created_at: Time
    links: dict[str, str]


class PredictParameters(Body):
    top_k: Annotated[int, Field(ge=1, le=100_000)] | None = None


_CELL: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
_ROW = {"type": "object", "additionalProperties": _CELL}
_INPUTS: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        _ROW,
        {
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [_CELL, _ROW, {"type": "array", "items": _CELL}]},
        },
    ]
}


class PredictBody(Body):
    """`inputs`: one image or up to 32, each base64 (a `data:...;base64,` prefix is dropped); or one record
    or up to 32, as the endpoint's data set has them: a row (object by column, or list), a series (list of
    numbers) or a sequence (text). null is a missing cell or value."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"inputs": "iVBORw0KGgo...", "parameters": {"top_k": 3}},
                {"inputs": [{"age": 61, "smoker": "yes"}]},
                {"inputs": [[0.1, 0.4, None, 0.2]]},
                {"inputs": ["ACGTTGCA"]},
            ]
        },
    )

    inputs: Annotated[Any, Field(json_schema_extra=_INPUTS)]
    parameters: Annotated[PredictParameters, Field(default_factory=PredictParameters)]


class LabelScore(BaseModel):
    label: str
    score: float


# ---------------------------------------------------------------- keys, usage


class KeyLimits(Body):
    """What the holder may do per second and spend in all; null takes a limit away."""

    requests_per_second: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    budget: Money | None = None


class KeyBody(Body):
    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=5)]
    limits: Annotated[KeyLimits, Field(default_factory=KeyLimits)]


class KeyPatch(Body):
    """Members that are given are changed. A budget counts what the key has spent already."""

    name: Name | None = None
    limits: KeyLimits | None = None


class KeyLimitsView(BaseModel):
    requests_per_second: float | None
    budget: Money | None


class KeyView(BaseModel):
    id: str
    object: Literal["key"] = "key"
    name: str
    last4: str
    scopes: list[str]
    limits: KeyLimitsView
    spent: list[Money] = Field(description="By its jobs, predictions and tests; one for each currency.")
    remaining: Money | None = Field(description="Of the budget; null without one.")
    created_at: Time
    last_used_at: Time | None
    revoked_at: Time | None


class NewKey(KeyView):
    key: str = Field(description="Shown this once.")


def _known(pattern: str) -> str:
    if not any(matches(pattern, type) for type in EVENT_TYPES):
        raise ValueError(f"is no event; there are {', '.join(EVENT_TYPES)}, and `*` at the end of a pattern")
    return pattern


EventPattern = Annotated[
    str, Field(max_length=40, pattern=r"^[a-z_.]*\*?$", examples=["job.*"]), AfterValidator(_known)
]
EventPatterns = Annotated[
    list[EventPattern],
    Field(min_length=1, max_length=20, description="Types of `GET /v1/jobs/{id}/events`, or `job.*`."),
]
_ENDINGS = ["job.succeeded", "job.failed", "job.cancelled", "job.paused"]


class WebhookBody(Body):
    url: Annotated[Url, AfterValidator(_http_url)]
    name: Annotated[str, Field(max_length=200)] = ""
    events: EventPatterns = Field(default=_ENDINGS)


class WebhookPatch(Body):
    """Members that are given are changed."""

    url: Annotated[Url, AfterValidator(_http_url)] | None = None
    name: Annotated[str, Field(max_length=200)] | None = None
    events: EventPatterns | None = None
    enabled: bool | None = None


class WebhookView(BaseModel):
    id: str
    object: Literal["webhook"] = "webhook"
    name: str
    url: str
    events: list[str]
    enabled: bool
    created_at: Time


class NewWebhook(WebhookView):
    secret: str = Field(description="`whsec_...`, shown this once.")


class DeliveryView(BaseModel):
    id: str = Field(description="The message's own, in the `webhook-id` header.")
    object: Literal["webhook.delivery"] = "webhook.delivery"
    webhook_id: str
    type: str
    data: dict[str, Any]
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    http_status: int | None
    error: str | None
    created_at: Time
    next_at: Time | None
    done_at: Time | None


class AuditView(BaseModel):
    id: int
    object: Literal["audit.line"] = "audit.line"
    at: Time
    key_id: str
    action: str
    resource: str
    request_id: str
    status: int
    cost: Money | None


class UsageLine(BaseModel):
    group: str
    requests: int
    billable_queries: int
    unknown_queries: int
    cost: Money


class Usage(BaseModel):
    object: Literal["usage"] = "usage"
    group_by: Literal["job", "connection", "endpoint", "day", "key"]
    data: list[UsageLine]
