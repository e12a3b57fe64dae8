"""Usage: where the money went."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast, get_args

from fastapi import Query, Request
from starlette.responses import Response

from app.api import operations as rest
from app.api import views
from app.api.deps import Services, Wired
from app.dashboard import web
from app.jobs.spec import Money
from app.storage.usage import Group

GROUPS = get_args(Group)
#: What is in the total, and in no line of a group.
ELSEWHERE = {
    "job": "Not of a job: tests of connections, predictions, canaries",
    "endpoint": "Not of an endpoint: jobs, tests of connections",
    "key": "Of no key",
}
_COUNTS = ("requests", "billable_queries", "unknown_queries")
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
    found = rest.get_usage(wired, group, moment(since), moment(until))
    everything = rest.get_usage(wired, "connection", moment(since), moment(until))["data"]
    total = _sums(everything)
    sums = {"total": total, "rest": _rest(total, _sums(found["data"])), "elsewhere": ELSEWHERE.get(group, "")}
    values = {"usage": found, "groups": GROUPS, "group": group, "since": since, "until": until}
    return web.render(request, "usage.html", known=_known(wired, group), **values, **sums)


def _sums(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each currency."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        currency = line["cost"]["currency"]
        sums = found.setdefault(currency, dict.fromkeys(_COUNTS, 0) | {"micros": 0})
        for name in _COUNTS:
            sums[name] += line[name]
        sums["micros"] += Money(**line["cost"]).micros
    return [one | {"cost": views.money(one["micros"], currency)} for currency, one in sorted(found.items())]


def _rest(total: list[dict[str, Any]], listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the total has beyond the lines that are listed."""
    known = {one["cost"]["currency"]: one for one in listed}
    left: list[dict[str, Any]] = []
    for one in total:
        currency = one["cost"]["currency"]
        mine = known.get(currency, dict.fromkeys((*_COUNTS, "micros"), 0))
        beyond = {name: one[name] - mine[name] for name in (*_COUNTS, "micros")}
        left.append(beyond | {"cost": views.money(beyond["micros"], currency)})
    return [one for one in left if one["requests"]]


def _known(wired: Services, group: Group) -> dict[str, tuple[str, str]]:
    """Name and page of the newest things that usage is summed by."""
    if group == "job":
        return {one.id: (one.name, f"/jobs/{one.id}") for one in wired.jobs.list(None, _KNOWN)}
    if group == "endpoint":
        return {one.id: (one.name, f"/endpoints/{one.name}") for one in wired.endpoints.list(None, _KNOWN)}
    if group == "connection":
        return {one.id: (one.name, f"/connections/{one.id}") for one in wired.connections.list(None, _KNOWN)}
    return {}


def moment(given: str) -> datetime | None:
    """A date or time from the address; None for what is none."""
    try:
        return datetime.fromisoformat(given) if given else None
    except ValueError:
        return None
