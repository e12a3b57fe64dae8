"""Endpoints and predictions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.base import Body, EndpointName, Time
from app.api.schemas.jobs import CostView
from app.jobs.spec import Money


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
