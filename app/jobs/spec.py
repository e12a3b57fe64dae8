"""What a user asks for: the body of `POST /v1/jobs`, validated before anything is stored or spent."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.errors import BadRequest
from app.methods import Method, make
from app.methods.options import Exact

MICROS = 1_000_000


def micros(amount: str) -> int:
    """Decimal string -> integer micro-units. Raises ValueError below one micro-unit or when negative."""
    try:
        scaled = Decimal(amount) * MICROS
    except InvalidOperation as error:
        raise ValueError("must be a decimal number, for example '5.00'") from error
    if not scaled.is_finite() or scaled < 0 or scaled > 2**53:
        raise ValueError("must be between 0 and 9007199254")
    if scaled != scaled.to_integral_value():
        raise ValueError("must have at most 6 decimals")
    return int(scaled)


def amount(value: int) -> str:
    """Integer micro-units -> decimal string with 6 places."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    return f"{sign}{value // MICROS}.{value % MICROS:06d}"


class Money(BaseModel):
    """Money as users write it: a decimal string and an ISO 4217 currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: Annotated[
        str, Field(max_length=24, pattern=r"^\d{1,12}(\.\d{1,6})?$", description="Decimal string, '5.00'.")
    ]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code.")] = "USD"

    @field_validator("amount")
    @classmethod
    def _fits(cls, value: str) -> str:
        micros(value)
        return value

    @property
    def micros(self) -> int:
        return micros(self.amount)

    @classmethod
    def of(cls, value: int, currency: str) -> Money:
        return cls(amount=amount(value), currency=currency)


class MethodSpec(BaseModel):
    """`type` names a method of `GET /v1/methods`; the other members are that method's options."""

    model_config = ConfigDict(
        extra="allow", frozen=True, json_schema_extra={"examples": [{"type": "auto"}, {"type": "bar"}]}
    )

    type: Annotated[str, Field(min_length=1, max_length=40)] = "auto"

    def build(self) -> Method:
        """The method itself. Raises BadRequest naming the option that is wrong."""
        return make(self.type, self.model_extra or {})


class JobLimits(Exact):
    """Hard limits. Learning and the final test together never pass them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_queries: Annotated[int, Field(ge=1, le=100_000_000, description="Most queries to pay for.")] = 20_000
    budget: Annotated[Money | None, Field(description="Most money to spend; null: max_queries alone.")] = None
    queries_per_prediction: Annotated[
        int, Field(ge=1, le=16, description="Views the finished program may ask per prediction.")
    ] = 4
    deadline: Annotated[datetime | None, Field(description="RFC 3339 time to stop learning at.")] = None
    pause_after_probe: Annotated[
        bool,
        Field(description="Rest once the probe is paid, with what to expect in `metrics.expectation`."),
    ] = False

    @field_validator("deadline")
    @classmethod
    def _zoned(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a time zone, for example 2026-12-01T12:00:00Z")
        return value


class Publish(BaseModel):
    """Publish the best program as an endpoint when the job succeeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]


class JobSpec(Exact):
    """One reprogramming job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    connection_id: Annotated[str, Field(max_length=40)]
    dataset_id: Annotated[str, Field(max_length=40)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    metadata: Annotated[dict[str, Any], Field(default_factory=dict)]
    method: Annotated[MethodSpec, Field(default_factory=MethodSpec)]
    limits: Annotated[JobLimits, Field(default_factory=JobLimits)]
    publish: Publish | None = None

    @field_validator("metadata")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(value) > 50 or len(str(value)) > 16_000:
            raise ValueError("at most 50 members and 16,000 characters")
        return value

    def query_limit(self, price_micros: int, currency: str) -> int:
        """The most queries both caps allow. Raises BadRequest on another currency than the connection's."""
        limits = self.limits
        if limits.budget is None:
            return limits.max_queries
        if limits.budget.currency != currency:
            raise BadRequest(
                f"The budget is in {limits.budget.currency}, the connection's price in {currency}.",
                code="currency_mismatch",
                param="limits.budget.currency",
                hint=f"Give the budget in {currency}.",
            )
        if price_micros == 0:
            return limits.max_queries
        return min(limits.max_queries, limits.budget.micros // price_micros)
