"""The audit log: who did what, and what it cost. Only for those who may administer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import Depends, Query, Request
from starlette.responses import Response

from app.api import audit as rest
from app.api.deps import Services, Wired
from app.dashboard import web
from app.dashboard.usage import moment

_PAGE = 50

router = web.router()
_ADMIN = [web.visitor("admin")]


@dataclass(frozen=True)
class Choice:
    """Which lines are wanted; "" is all."""

    key_id: Annotated[str, Query(max_length=40)] = ""
    action: Annotated[str, Query(max_length=60)] = ""
    since: Annotated[str, Query(max_length=40)] = ""
    until: Annotated[str, Query(max_length=40)] = ""

    def lines(self, wired: Services, after: int | None, form: Literal["json", "csv"]) -> Any:  # noqa: ANN401
        """What REST answers."""
        wanted = self.key_id or None, self.action or None, moment(self.since), moment(self.until)
        return rest.list_audit(wired, _PAGE, after, *wanted, form)


@router.get("/audit", dependencies=_ADMIN)
def audit_page(
    request: Request, wired: Wired, chosen: Annotated[Choice, Depends()], after: int | None = None
) -> Response:
    """Every call that is no read, newest first."""
    page, given = chosen.lines(wired, after, "json"), asdict(chosen)
    names = {one.id: one.name for one in wired.keys.list(None, 100)}
    asked = urlencode({name: value for name, value in given.items() if value})
    return web.render(request, "audit.html", page=page, names=names, asked=asked, **given)


@router.get("/audit.csv", dependencies=_ADMIN)
def audit_csv(wired: Wired, chosen: Annotated[Choice, Depends()]) -> Response:
    """All lines of the same choice."""
    return chosen.lines(wired, None, "csv")
