"""Jobs, apart from what makes one (`app.jobs.spec`), and what comes out of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.base import Body, Name, Time
from app.jobs.spec import Money


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
    model_version: str | None
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
