"""Data sets and their items."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.base import Time


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
