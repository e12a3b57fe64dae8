"""/v1/connections: remote accounts and their source models."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api import auth, terms, views
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, page
from app.api.problems import declared, storable
from app.api.schemas.base import Page
from app.api.schemas.connections import (
    Connection,
    ConnectionBody,
    ConnectionPatch,
    ConnectionTest,
    ConnectionTestBody,
    Labels,
)
from app.errors import BadRequest
from app.jobs.spec import Money
from app.storage.connections import ConnectionRecord, NewConnection

_LARGEST_DOCUMENT = 100_000  # characters of `model` and `options` together

router = APIRouter(prefix="/v1/connections", tags=["connections"], responses=declared(402, 502))


@router.post("", status_code=201, response_model=Connection, dependencies=[auth.needs("write")])
async def create_connection(
    body: ConnectionBody, request: Request, response: Response, wired: Wired
) -> dict[str, Any]:
    """Add a remote account with one source model."""
    await _allow_reference(request, wired, body.secret_ref or _borrows(body.model))
    created = await asyncio.to_thread(_create, wired, body)
    response.headers["Location"] = f"/v1/connections/{created['id']}"
    return created


def _create(wired: Services, body: ConnectionBody) -> dict[str, Any]:
    storable(body)
    if len(json.dumps([body.model, body.options])) > _LARGEST_DOCUMENT:
        raise BadRequest(
            "`model` and `options` are too long.", param="options", hint="100,000 characters at most."
        )
    assert body.price is not None
    new = NewConnection(
        name=body.name,
        provider=body.provider,
        base_url=body.base_url,
        model=body.model,
        options=body.options,
        price=body.price.price(),
        limits=body.limits.limits(),
        secret=body.secret,
        secret_ref=body.secret_ref,
    )
    cap = _cap(body.budget, new.price.currency)
    wired.check_connection(_draft(new))
    if not body.terms_acknowledged:
        terms.refuse_public(new.provider, new.base_url)
    record = wired.connections.create(new)
    if cap is not None:
        wired.ledger.set_caps(record.id, cap, None)
    return views.connection(wired, record)


def _draft(new: NewConnection) -> ConnectionRecord:
    """The connection as it would be: what the provider is asked to check."""
    return ConnectionRecord(
        id="",
        name=new.name,
        provider=new.provider,
        base_url=new.base_url,
        model=new.model,
        options=new.options,
        secret_ref=new.secret_ref,
        secret_last4=None,
        secret_set=new.secret is not None,
        price=new.price,
        limits=new.limits,
        labels=(),
        model_version="",
        created_at=0.0,
    )


def _cap(budget: Money | None, currency: str) -> int | None:
    if budget is None:
        return None
    if budget.currency != currency:
        raise BadRequest(
            f"The budget is in {budget.currency}, the price in {currency}.",
            code="currency_mismatch",
            param="budget.currency",
            hint=f"Give the budget in {currency}.",
        )
    return budget.micros


async def _allow_reference(request: Request, wired: Services, ref: str | None) -> None:
    """Whoever may name files and variables of this machine may read them: that takes `admin`."""
    if ref is not None:
        auth.demand(await auth.identify(request, wired), "admin")


def _borrows(model: dict[str, Any]) -> str | None:
    """What names a variable of this machine in a template, if anything does."""
    return "env" if re.search(r"\{\s*env\.", json.dumps(model)) else None


@router.get("", response_model=Page[Connection], dependencies=[auth.needs("read")])
def list_connections(wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first."""
    found = wired.connections.list(after, limit + 1)
    return page(found, limit, lambda record: views.connection(wired, record), lambda record: record.id)


@router.get("/{connection_id}", response_model=Connection, dependencies=[auth.needs("read")])
def get_connection(connection_id: str, wired: Wired) -> dict[str, Any]:
    """One connection. Its secret is never shown."""
    return views.connection(wired, wired.connections.get(connection_id))


@router.patch("/{connection_id}", response_model=Connection, dependencies=[auth.needs("write")])
async def change_connection(
    connection_id: str, body: ConnectionPatch, request: Request, wired: Wired
) -> dict[str, Any]:
    """Change name, address, secret, price, limits or the account's budget. The model stays: another model is
    another connection."""
    await _allow_reference(request, wired, body.secret_ref)
    return await asyncio.to_thread(_change, wired, connection_id, body)


def _change(wired: Services, connection_id: str, body: ConnectionPatch) -> dict[str, Any]:
    storable(body)
    before = wired.connections.get(connection_id)
    price = body.price.price() if body.price else None
    if price is not None and price.currency != before.price.currency:
        raise BadRequest(
            f"What the connection spent is counted in {before.price.currency}.",
            code="currency_mismatch",
            param="price.currency",
            hint="Make a new connection for another currency.",
        )
    if body.base_url is not None:
        wired.check_connection(replace(before, base_url=body.base_url))
        if not body.terms_acknowledged and body.base_url != before.base_url:
            terms.refuse_public(before.provider, body.base_url)
    if "budget" in body.model_fields_set:
        wired.ledger.set_caps(connection_id, _cap(body.budget, before.price.currency), None)
    record = wired.connections.update(
        connection_id,
        name=body.name,
        base_url=body.base_url,
        secret=body.secret,
        secret_ref=body.secret_ref,
        price=price,
        limits=body.limits.limits() if body.limits else None,
    )
    return views.connection(wired, record)


@router.delete("/{connection_id}", status_code=204, dependencies=[auth.needs("write")])
def delete_connection(connection_id: str, wired: Wired) -> None:
    """Forget the account and its secret; 409 while jobs or endpoints use it."""
    wired.connections.delete(connection_id)


@router.post("/{connection_id}/test", response_model=ConnectionTest, dependencies=[auth.needs("spend")])
async def test_connection(
    connection_id: str,
    request: Request,
    response: Response,
    wired: Wired,
    body: ConnectionTestBody | None = None,  # noqa: PT028 - a route, no test
) -> dict[str, Any]:
    """Send one billable query: labels, kind of scores, latency, model version, clock skew. With `probes`
    three or four more: does the service seem to resize or re-compress? With `repeats`: do answers vary?"""
    record = await asyncio.to_thread(wired.connections.get, connection_id)
    payer = auth.caller_of(request).account(record.price.currency)
    asked = body or ConnectionTestBody()
    found = await wired.probe(connection_id, payer, probes=asked.probes, repeats=asked.repeats)
    shown = {k: v for k, v in found.items() if k not in ("cost_micros", "currency")}
    if "cost_micros" in found:
        shown["cost"] = views.money(found["cost_micros"], record.price.currency)
        response.headers["X-Cost"] = f"{shown['cost']['amount']} {record.price.currency}"
    return {"connection_id": connection_id, **shown}


@router.get("/{connection_id}/labels", response_model=Labels, dependencies=[auth.needs("read")])
def get_labels(connection_id: str, wired: Wired) -> dict[str, Any]:
    """The source labels seen so far (all of them once a query was answered, for most providers)."""
    labels = list(wired.connections.get(connection_id).labels)
    return {"connection_id": connection_id, "labels": labels, "count": len(labels)}
