"""The audit log: who did what, and what it cost. Only for those who may administer."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from starlette.responses import Response

from app.api import audit as rest
from app.api.deps import Wired
from app.dashboard import web

_PAGE = 50

router = web.router()
_ADMIN = [web.visitor("admin")]


@router.get("/audit", dependencies=_ADMIN)
def audit_page(
    request: Request,
    wired: Wired,
    after: int | None = None,
    key_id: Annotated[str, Query(max_length=40)] = "",
    action: Annotated[str, Query(max_length=60)] = "",
) -> Response:
    """Every call that is no read, newest first."""
    page = rest.list_audit(wired, _PAGE, after, key_id or None, action or None, None, None, "json")
    names = {one.id: one.name for one in wired.keys.list(None, 100)}
    return web.render(request, "audit.html", page=page, names=names, key_id=key_id, action=action)


@router.get("/audit.csv", dependencies=_ADMIN)
def audit_csv(wired: Wired) -> Response:
    """All of it."""
    return rest.list_audit(wired, _PAGE, None, None, None, None, None, "csv")
