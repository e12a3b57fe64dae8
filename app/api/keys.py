"""/v1/keys: who may do what, how fast, and for how much."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, page
from app.api.problems import declared, storable
from app.api.schemas import keys as schemas
from app.api.schemas.base import Page
from app.api.schemas.keys import KeyBody, KeyPatch, KeyView, NewKey
from app.storage.keys import KeyLimits, KeyRecord

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=declared(), dependencies=[auth.needs("admin")])


@router.post("", status_code=201, response_model=NewKey)
def create_key(body: KeyBody, response: Response, wired: Wired) -> dict[str, Any]:
    """A new key. It is in this answer and nowhere else. `admin` stands for every scope."""
    storable(body)
    scopes = list(dict.fromkeys(body.scopes))
    record, key = wired.keys.create(body.name, scopes, _limits(body.limits))
    response.headers["Location"] = f"/v1/keys/{record.id}"
    return {**views.key(wired, record), "key": key}


@router.get("", response_model=Page[KeyView])
def list_keys(wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first, revoked ones included."""
    found = wired.keys.list(after, limit + 1)
    return page(found, limit, lambda record: views.key(wired, record), lambda record: record.id)


@router.get("/{key_id}", response_model=KeyView)
def get_key(key_id: str, wired: Wired) -> dict[str, Any]:
    """One key's name, scopes, limits, spending and last use."""
    return views.key(wired, wired.keys.get(key_id))


@router.patch("/{key_id}", response_model=KeyView)
def change_key(key_id: str, body: KeyPatch, wired: Wired) -> dict[str, Any]:
    """Change the name or the limits, from the next request on. The budget may fall no lower than what is
    spent or on its way (409)."""
    storable(body)
    before = wired.keys.get(key_id)
    limits = None if body.limits is None else _changed(wired, before, body.limits)
    return views.key(wired, wired.keys.edit(key_id, name=body.name, limits=limits))


def _limits(given: schemas.KeyLimits) -> KeyLimits:
    budget = given.budget
    cap, currency = (None, None) if budget is None else (budget.micros, budget.currency)
    return KeyLimits(given.requests_per_second, cap, currency)


def _changed(wired: Services, before: KeyRecord, given: schemas.KeyLimits) -> KeyLimits:
    """What is given, and the rest as it was."""
    new, named = _limits(given), given.model_fields_set
    rate = new.requests_per_second if "requests_per_second" in named else before.requests_per_second
    if "budget" in named:
        return KeyLimits(rate, new.cap, new.currency)
    known = wired.keys.costs(before.id).get(before.currency or "")
    return KeyLimits(rate, None if known is None else known.cap, before.currency)


@router.delete("/{key_id}", status_code=204)
def revoke_key(key_id: str, wired: Wired) -> None:
    """From now on the key opens nothing. Jobs that it started go on under their own limits: cancel those that
    should not."""
    wired.keys.revoke(key_id)
