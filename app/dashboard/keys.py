"""Keys: who may do what, how fast, and for how much. Only for those who may administer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Request
from starlette.responses import Response

from app.api import keys as rest
from app.api.deps import Services, Wired
from app.api.schemas.keys import KeyBody, KeyPatch
from app.dashboard import web
from app.errors import ReprogError
from app.storage.keys import SCOPES

_PAGE = 50

router = web.router()
_ADMIN = [web.visitor("admin")]


@router.get("/keys", dependencies=_ADMIN)
def keys_page(request: Request, wired: Wired, after: str | None = None) -> Response:
    """Newest first, and the form for a new one."""
    return _page(request, wired, after)


def _page(
    request: Request, wired: Services, after: str | None = None, made: dict[str, Any] | None = None,
    problem: ReprogError | None = None,
) -> Response:  # fmt: skip
    page = rest.list_keys(wired, _PAGE, after or None)
    code = 200 if problem is None else problem.status
    return web.render(request, "keys.html", code, page=page, scopes=SCOPES, made=made, problem=problem)


@router.post("/keys", dependencies=_ADMIN)
def create(
    request: Request,
    wired: Wired,
    name: Annotated[str, Form()] = "",
    scope: Annotated[list[str] | None, Form()] = None,
    rate: Annotated[str, Form()] = "",
    budget: Annotated[str, Form()] = "",
    currency: Annotated[str, Form()] = "",
) -> Response:
    """A new key, shown on this one page."""
    given: dict[str, Any] = {"name": name.strip(), "scopes": scope or []}
    try:
        body = web.body(KeyBody, given | _caps(rate, budget, currency))
        return _page(request, wired, made=rest.create_key(body, Response(), wired))
    except ReprogError as error:
        return _page(request, wired, problem=error)


@router.post("/keys/{key_id}/change", dependencies=_ADMIN)
def change(
    key_id: str,
    wired: Wired,
    name: Annotated[str, Form()] = "",
    rate: Annotated[str, Form()] = "",
    budget: Annotated[str, Form()] = "",
    currency: Annotated[str, Form()] = "",
) -> Response:
    """Another name, another cap."""
    given = ({"name": name.strip()} if name.strip() else {}) | _caps(rate, budget, currency)
    rest.change_key(key_id, web.body(KeyPatch, given), wired)
    return web.see("/keys")


def _caps(rate: str, budget: str, currency: str) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if rate.strip():
        limits["requests_per_second"] = rate.strip()
    if budget.strip():
        limits["budget"] = {"amount": budget.strip(), "currency": currency.strip().upper() or "USD"}
    return {"limits": limits} if limits else {}


@router.post("/keys/{key_id}/revoke", dependencies=_ADMIN)
def revoke(key_id: str, wired: Wired) -> Response:
    """From now on it opens nothing."""
    rest.revoke_key(key_id, wired)
    return web.see("/keys")
