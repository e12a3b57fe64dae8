"""The audit log: who did what, and what it cost. Only for those who may administer."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request
from starlette.responses import Response

from app.api import audit as rest
from app.api.deps import Wired
from app.dashboard import web
from app.dashboard.usage import moment

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
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Every call that is no read, newest first."""
    wanted = key_id or None, action or None, moment(since), moment(until)
    page = rest.list_audit(wired, _PAGE, after, *wanted, "json")
    chosen = {"key_id": key_id, "action": action, "since": since, "until": until}
    names = {one.id: one.name for one in wired.keys.list(None, 100)}
    asked = urlencode({name: value for name, value in chosen.items() if value})
    return web.render(request, "audit.html", page=page, names=names, asked=asked, **chosen)


@router.get("/audit.csv", dependencies=_ADMIN)
def audit_csv(
    wired: Wired,
    key_id: Annotated[str, Query(max_length=40)] = "",
    action: Annotated[str, Query(max_length=60)] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """All lines of the same choice."""
    wanted = key_id or None, action or None, moment(since), moment(until)
    return rest.list_audit(wired, _PAGE, None, *wanted, "csv")
