"""/v1/endpoints: the reprogrammed models, their versions and caps. Asking them is in `predict`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, Number, page
from app.api.problems import declared
from app.api.schemas.base import Page
from app.api.schemas.endpoints import (
    CanaryBody,
    EndpointBody,
    EndpointLimits,
    EndpointPatch,
    EndpointView,
    VersionView,
)
from app.errors import BadRequest
from app.jobs.spec import Money
from app.storage.canaries import scope
from app.storage.endpoints import EndpointRecord

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], responses=declared(402))


def _view(wired: Services, record: EndpointRecord) -> dict[str, Any]:
    return views.endpoint(wired, record, wired.connections.currencies()[record.live.connection_id])


@router.post("", status_code=201, response_model=EndpointView, dependencies=[auth.needs("write")])
def create_endpoint(body: EndpointBody, response: Response, wired: Wired) -> dict[str, Any]:
    """Publish a job's program, the best one unless `checkpoint_id` says which. With `overwrite` an endpoint
    of that name gets it as its new version."""
    job = wired.jobs.get(body.job_id)
    checkpoint = body.checkpoint_id or wired.jobs.latest_program(job.id).id
    record = wired.endpoints.publish(body.name, job.id, checkpoint, overwrite=body.overwrite)
    if body.limits is not None:
        _cap(wired, record, body.limits)
    response.headers["Location"] = f"/v1/endpoints/{record.name}"
    return _view(wired, record)


@router.get("", response_model=Page[EndpointView], dependencies=[auth.needs("read")])
def list_endpoints(wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first."""
    found = wired.endpoints.list(after, limit + 1)
    return page(found, limit, lambda record: _view(wired, record), lambda record: record.id)


@router.get("/{name}", response_model=EndpointView, dependencies=[auth.needs("read")])
def get_endpoint(name: str, wired: Wired) -> dict[str, Any]:
    """One endpoint with its live version and what it has cost."""
    return _view(wired, wired.endpoints.get(name))


@router.patch("/{name}", response_model=EndpointView, dependencies=[auth.needs("write")])
def change_endpoint(name: str, body: EndpointPatch, wired: Wired) -> dict[str, Any]:
    """Roll back or forward (`version`), switch off and on (`enabled`), cap the spending (`limits`), watch the
    source model (`canary`)."""
    record = wired.endpoints.get(name)
    if body.limits is not None:
        _cap(wired, record, body.limits)
    if "canary" in body.model_fields_set:
        _watch(wired, record, body.canary)
    return _view(wired, wired.endpoints.edit(name, version=body.version, enabled=body.enabled))


def _watch(wired: Services, record: EndpointRecord, canary: CanaryBody | None) -> None:
    """Set the canary up, anew, or take it away. Raises BadRequest, Conflict `cap_below_spent`."""
    if canary is None:
        wired.endpoints.canaries.remove(record.id)
        return
    cap = _money(wired, record, canary.budget, "canary.budget.currency")
    wired.endpoints.canaries.put(record.id, canary.queries, canary.every_seconds, canary.tolerance)
    wired.ledger.set_caps(scope(record.id), cap, None)


def _money(wired: Services, record: EndpointRecord, budget: Money | None, param: str) -> int | None:
    """A cap in micro-units. Raises BadRequest `currency_mismatch`."""
    currency = wired.connections.currencies()[record.live.connection_id]
    if budget is not None and budget.currency != currency:
        raise BadRequest(
            f"The budget is in {budget.currency}, the connection's price in {currency}.",
            code="currency_mismatch",
            param=param,
            hint=f"Give the budget in {currency}.",
        )
    return None if budget is None else budget.micros


def _cap(wired: Services, record: EndpointRecord, limits: EndpointLimits) -> None:
    """Set the caps that are given; null takes one away. Raises BadRequest, Conflict `cap_below_spent`."""
    given = _money(wired, record, limits.budget, "limits.budget.currency")
    now = views.spending(wired, record.id)
    cap, queries = now.cap, now.queries_cap
    if "budget" in limits.model_fields_set:
        cap = given
    if "max_queries" in limits.model_fields_set:
        queries = limits.max_queries
    wired.ledger.set_caps(record.id, cap, queries)


@router.delete("/{name}", status_code=204, dependencies=[auth.needs("write")])
def delete_endpoint(name: str, wired: Wired) -> None:
    """Stop serving it. The job and its programs stay."""
    wired.endpoints.delete(name)


@router.get("/{name}/versions", response_model=Page[VersionView], dependencies=[auth.needs("read")])
def list_versions(name: str, wired: Wired, limit: Limit = 20, after: Number | None = None) -> dict[str, Any]:
    """Newest first."""
    found = wired.endpoints.versions(name, after, limit + 1)
    return page(found, limit, views.version, lambda record: record.version)
