"""Keys, webhooks, the audit log and usage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from app.api.schemas.base import Body, Name, Scope, Time
from app.api.schemas.connections import Url, http_url
from app.jobs.spec import Money
from app.storage.events import TYPES as EVENT_TYPES
from app.storage.webhooks import matches


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
    url: Annotated[Url, AfterValidator(http_url)]
    name: Annotated[str, Field(max_length=200)] = ""
    events: EventPatterns = Field(default=_ENDINGS)


class WebhookPatch(Body):
    """Members that are given are changed."""

    url: Annotated[Url, AfterValidator(http_url)] | None = None
    name: Annotated[str, Field(max_length=200)] | None = None
    events: EventPatterns | None = None
    enabled: bool | None = None


class WebhookRotation(Body):
    keep_hours: Annotated[float, Field(strict=True, ge=0, le=720, allow_inf_nan=False)] = Field(
        default=24.0, description="So long the old secret signs beside the new one; 0: it ends at once."
    )


class WebhookView(BaseModel):
    id: str
    object: Literal["webhook"] = "webhook"
    name: str
    url: str
    events: list[str]
    enabled: bool
    created_at: Time
    old_secret_until: Time | None = Field(
        description="Until then the secret before the last rotation signs too."
    )


class NewWebhook(WebhookView):
    secret: str = Field(description="`whsec_...`, shown this once.")


DeliveryStatus = Literal["pending", "delivered", "failed"]


class DeliveryView(BaseModel):
    id: str = Field(description="The message's own, in the `webhook-id` header.")
    object: Literal["webhook.delivery"] = "webhook.delivery"
    webhook_id: str
    type: str
    data: dict[str, Any]
    status: DeliveryStatus
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
