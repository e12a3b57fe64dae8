"""The first page: what runs, what was spent, what to do next."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.api import endpoints as rest_endpoints
from app.api import jobs as rest_jobs
from app.api import views
from app.api.deps import Services, Wired
from app.dashboard import web

_RECENT = 8
_CONNECTIONS = 100

router = web.router()


@router.get("/", dependencies=[web.visitor("read")])
def overview(request: Request, wired: Wired) -> Response:
    """Figures, the last jobs, endpoints."""
    counts, (spent, queries) = wired.jobs.counts(), _spent(wired)
    connections = wired.connections.list(None, _CONNECTIONS)
    return web.render(
        request,
        "overview.html",
        counts=counts,
        total=sum(counts.values()),
        spent=spent,
        queries=queries,
        jobs=rest_jobs.list_jobs(wired, limit=_RECENT)["data"],
        endpoints=rest_endpoints.list_endpoints(wired, limit=_RECENT)["data"],
        connections=connections,
        datasets=wired.datasets.list(None, 1),
    )


def _spent(wired: Services) -> tuple[list[dict[str, str]], int]:
    """Money spent on all accounts, deleted ones included, by currency; and the queries paid."""
    total, queries = Counter[str](), 0
    for ident, currency in wired.connections.currencies().items():
        found = views.spending(wired, ident)
        total[currency] += found.spent
        queries += found.queries_spent
    return [views.money(micros, currency) for currency, micros in sorted(total.items())], queries


def names(wired: Services) -> dict[str, Any]:
    """Names of the newest connections and data sets by id, for tables."""
    connections = {one.id: one.name for one in wired.connections.list(None, _CONNECTIONS)}
    return connections | {one.id: one.name for one in wired.datasets.list(None, _CONNECTIONS)}
