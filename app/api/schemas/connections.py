"""Connections: a remote account and one source model."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.api.schemas.base import Body, Name, Time
from app.contracts import Limits, Price
from app.jobs.spec import Money, micros


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


def http_url(value: str) -> str:
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

    _url = field_validator("base_url")(http_url)

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
        return None if value is None else http_url(value)


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
        default=False,
        description="Three or four queries more: does the service seem to resize or re-compress images?",
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
    probes: dict[str, bool] | None = Field(
        None, description="With `probes`: whether each pattern changed the answer."
    )


class Labels(BaseModel):
    object: Literal["connection.labels"] = "connection.labels"
    connection_id: str
    labels: list[str]
    count: int
