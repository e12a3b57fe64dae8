"""/v1/providers: what a connection may be to, with the settings of each."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.api import auth
from app.api.problems import declared
from app.api.schemas.connections import LimitsView, PriceView
from app.jobs.spec import amount
from app.providers import PROVIDERS, ProviderType


class ProviderDefaults(BaseModel):
    """What to assume of an account until its owner says otherwise. List prices change."""

    price: PriceView
    limits: LimitsView
    as_of: str
    terms: str | None


class ProviderView(BaseModel):
    object: Literal["provider"] = "provider"
    name: str
    description: str
    defaults: ProviderDefaults
    model_schema: dict[str, Any]
    options_schema: dict[str, Any]


class Providers(BaseModel):
    object: Literal["list"] = "list"
    data: list[ProviderView]
    has_more: Literal[False] = False
    next_cursor: None = None


router = APIRouter(prefix="/v1/providers", tags=["connections"], responses=declared())


@router.get("", response_model=Providers, dependencies=[auth.needs("read")])
def list_providers() -> dict[str, Any]:
    """Every provider: schemas of a connection's `model` and `options`, assumed price and limits, terms."""
    return {"data": [_view(name, kind) for name, kind in PROVIDERS.items()]}


def _view(name: str, kind: type[ProviderType]) -> dict[str, Any]:
    assumed = kind.defaults
    module = inspect.getmodule(kind)
    return {
        "name": name,
        "description": (inspect.getdoc(module) or "").strip(),
        "defaults": {
            "price": {"per_1000": amount(assumed.price.micros * 1000), "currency": assumed.price.currency},
            "limits": {
                "requests_per_second": assumed.limits.requests_per_second,
                "concurrency": assumed.limits.concurrency,
                "max_batch": assumed.limits.max_batch,
            },
            "as_of": assumed.as_of,
            "terms": assumed.terms or None,
        },
        "model_schema": kind.Model.model_json_schema(),
        "options_schema": kind.Options.model_json_schema(),
    }
