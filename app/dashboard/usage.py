"""Usage: where the money went."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast, get_args

from fastapi import Query, Request
from starlette.responses import Response

from app.api import operations as rest
from app.api.deps import Services, Wired
from app.dashboard import web
from app.storage.usage import Group

GROUPS = get_args(Group)
_KNOWN = 100

router = web.router()


@router.get("/usage", dependencies=[web.visitor("read")])
def usage_page(
    request: Request,
    wired: Wired,
    group_by: Annotated[str, Query(max_length=20)] = "day",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Requests, queries and money by day, job, endpoint or connection."""
    group = cast("Group", group_by if group_by in GROUPS else GROUPS[0])
    found = rest.get_usage(wired, group, _time(since), _time(until))
    values = {"usage": found, "groups": GROUPS, "group": group, "since": since, "until": until}
    return web.render(request, "usage.html", known=_known(wired, group), **values)


def _known(wired: Services, group: Group) -> dict[str, tuple[str, str]]:
    """Name and page of the newest things that usage is summed by."""
    if group == "job":
        return {one.id: (one.name, f"/jobs/{one.id}") for one in wired.jobs.list(None, _KNOWN)}
    if group == "endpoint":
        return {one.id: (one.name, f"/endpoints/{one.name}") for one in wired.endpoints.list(None, _KNOWN)}
    if group == "connection":
        return {one.id: (one.name, f"/connections/{one.id}") for one in wired.connections.list(None, _KNOWN)}
    return {}


def _time(given: str) -> datetime | None:
    """A date or time from the address; None for what is none."""
    try:
        return datetime.fromisoformat(given) if given else None
    except ValueError:
        return None
