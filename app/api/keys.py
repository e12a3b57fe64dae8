"""/v1/keys: who may do what."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.api import auth, views
from app.api.deps import Wired
from app.api.lists import After, Limit, page
from app.api.problems import declared, storable
from app.api.schemas import KeyBody, KeyView, NewKey, Page

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=declared(), dependencies=[auth.needs("admin")])


@router.post("", status_code=201, response_model=NewKey)
def create_key(body: KeyBody, wired: Wired) -> dict[str, Any]:
    """A new key. It is in this answer and nowhere else. `admin` stands for every scope."""
    storable(body)
    record, key = wired.keys.create(body.name, list(dict.fromkeys(body.scopes)))
    return {**views.key(record), "key": key}


@router.get("", response_model=Page[KeyView])
def list_keys(wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first, revoked ones included."""
    return page(wired.keys.list(after, limit + 1), limit, views.key, lambda record: record.id)


@router.get("/{key_id}", response_model=KeyView)
def get_key(key_id: str, wired: Wired) -> dict[str, Any]:
    """One key's name, scopes and last use."""
    return views.key(wired.keys.get(key_id))


@router.delete("/{key_id}", status_code=204)
def revoke_key(key_id: str, wired: Wired) -> None:
    """From now on the key opens nothing."""
    wired.keys.revoke(key_id)
