"""Usage, methods, health, metrics, version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import text

from app import __version__
from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.edge import Traffic
from app.api.lists import Moment, seconds
from app.api.problems import EVERYWHERE, declared
from app.api.schemas.keys import Usage
from app.methods import schemas
from app.storage import usage as storage
from app.storage.database import read
from app.storage.usage import Group

_DAY = 86_400
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
_NO_KEY = {status: value for status, value in declared().items() if status not in (401, 403)}
assert {401, 403} <= set(EVERYWHERE)

router = APIRouter(tags=["operations"])


@router.get("/v1/usage", response_model=Usage, dependencies=[auth.needs("read")], responses=declared())
def get_usage(
    wired: Wired,
    group_by: Annotated[Group, Query(description="What to sum by.")] = "job",
    since: Annotated[Moment | None, Query(description="RFC 3339; from this time on.")] = None,
    until: Annotated[Moment | None, Query(description="RFC 3339; before this time.")] = None,
) -> dict[str, Any]:
    """Requests, queries and money of jobs, endpoints or connections, or by UTC day. A connection's figures
    include its test queries."""
    found = storage.usage(wired.engine, group_by, seconds(since), seconds(until))
    lines = [
        {
            "group": _date(line.group) if group_by == "day" else line.group,
            "requests": line.requests,
            "billable_queries": line.billable_queries,
            "unknown_queries": line.unknown_queries,
            "cost": views.money(line.cost_micros, line.currency),
        }
        for line in found
    ]
    return {"group_by": group_by, "data": lines}


def _date(day: str) -> str:
    return datetime.fromtimestamp(int(day) * _DAY, UTC).date().isoformat()


@router.get(
    "/v1/methods", response_model=dict[str, Any], dependencies=[auth.needs("read")], responses=declared()
)
def list_methods() -> dict[str, Any]:
    """Every method with the JSON schema of its options, defaults included."""
    data = [{"object": "method", "type": name, "schema": schema} for name, schema in schemas().items()]
    return {"object": "list", "data": data, "has_more": False, "next_cursor": None}


@router.get("/v1/version", response_model=dict[str, str], responses=_NO_KEY)
def get_version() -> dict[str, str]:
    """This release."""
    return {"name": "reprog", "version": __version__, "api": "v1"}


@router.get("/livez", response_model=dict[str, str], responses=_NO_KEY)
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=dict[str, str], responses=_NO_KEY)
def ready(wired: Wired) -> dict[str, str]:
    """The database answers too; 503 otherwise."""
    with read(wired.engine) as connection:
        connection.execute(text("SELECT 1 FROM jobs WHERE 1 = 0"))
    return {"status": "ok"}


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[auth.needs("read")],
    responses={**declared(), 200: {"content": {"text/plain": {}}, "description": "Prometheus text."}},
)
def prometheus(request: Request, wired: Wired) -> Response:
    """Requests of this process; jobs, queries and money of the database."""
    traffic: Traffic = request.app.state.traffic
    lines = [*traffic.exposition(), *_jobs(wired), *_spending(wired)]
    return Response("\n".join(lines) + "\n", media_type=_EXPOSITION)


def _jobs(wired: Services) -> list[str]:
    counts = wired.jobs.counts()
    return [
        "# TYPE reprog_jobs gauge",
        *(f'reprog_jobs{{status="{s}"}} {n}' for s, n in sorted(counts.items())),
    ]


def _spending(wired: Services) -> list[str]:
    found = storage.usage(wired.engine, "connection")
    lines = ["# TYPE reprog_billable_queries_total counter"]
    lines += [f'reprog_billable_queries_total{{connection="{u.group}"}} {u.billable_queries}' for u in found]
    lines.append("# TYPE reprog_spent_total counter")
    for line in found:
        labels = f'connection="{line.group}",currency="{line.currency}"'
        lines.append(
            f"reprog_spent_total{{{labels}}} {views.money(line.cost_micros, line.currency)['amount']}"
        )
    return lines
