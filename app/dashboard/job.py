"""One job: what it does now, what it cost, what it learned."""

from __future__ import annotations

import time
from typing import Any

from fastapi import Request
from starlette.responses import Response

from app.api import job_events, job_results, views
from app.api.deps import Services, Wired
from app.api.job_results import CheckpointId
from app.dashboard import drawings, web
from app.dashboard.words import BASELINES
from app.errors import NotFound
from app.jobs.spec import Money
from app.storage import latest
from app.storage.jobs import JobRecord

_LINES = 8
_TABLE = 25  # points of the curve in the table
_CHECKPOINTS = 60

router = web.router()


def document(wired: Services, record: JobRecord) -> dict[str, Any]:
    """The job object of the REST surface."""
    return views.job(wired, record, wired.connections.currencies()[record.connection_id])


@router.get("/jobs/{job_id}", dependencies=[web.visitor("read")])
def job_page(job_id: str, request: Request, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """Everything about a job; parts that take longer are fetched by the page, or followed as links."""
    record = wired.jobs.get(job_id)
    saved = list(reversed(wired.jobs.programs(job_id, None, _CHECKPOINTS)))
    shown = checkpoint_id or (saved[-1].id if saved else None)
    found = document(wired, record)
    return web.render(
        request,
        "job.html",
        job=found,
        **_live(wired, record, found),
        curve=job_results.get_metrics(job_id, wired, "cost", _TABLE)["data"],
        checkpoints=saved,
        shown=shown,
        forest=_forest(found["metrics"]),
        source=_source(wired, record),
        dataset=_dataset(wired, record),
        body=views_body(record),
    )


@router.get("/jobs/{job_id}/live", dependencies=[web.visitor("read")])
def live_part(job_id: str, request: Request, wired: Wired) -> Response:
    """The part of the page that changes while the job runs."""
    record = wired.jobs.get(job_id)
    found = document(wired, record)
    return web.render(request, "_job_live.html", job=found, **_live(wired, record, found))


@router.get("/jobs/{job_id}/stream", dependencies=[web.visitor("read")])
async def stream(job_id: str, request: Request, wired: Wired, after: int = 0) -> Response:
    """The server-sent events of the REST surface, for the page's own session."""
    return await job_events.stream_events(job_id, wired, after, request.headers.get("last-event-id"))


@router.get("/jobs/{job_id}/curve", dependencies=[web.visitor("read")])
def curve(job_id: str, wired: Wired) -> dict[str, Any]:
    """What the chart draws: one column per series, against all three axes, with baselines and intervals."""
    record = wired.jobs.get(job_id)
    points = wired.jobs.points(job_id, 500)
    start = record.started_at or (points[0].at if points else 0.0)
    best: dict[str, Any] = record.metrics.get("best") or {}
    baselines: dict[str, Any] = record.metrics.get("baselines") or {}
    return {
        "currency": wired.connections.currencies()[record.connection_id],
        "step": [point.step for point in points],
        "queries": [point.queries for point in points],
        "cost": [point.spent_micros / 1e6 for point in points],
        "time": [point.at - start for point in points],
        "loss": [_first(point.data, "train_loss", "val_loss", "loss") for point in points],
        "accuracy": [_first(point.data, "val_accuracy") for point in points],
        "validation_images": best.get("validation_images"),
        "baselines": [
            {"name": BASELINES.get(k, (k,))[0], "accuracy": v["accuracy"]} for k, v in baselines.items()
        ],
    }


def _first(data: dict[str, Any], *names: str) -> float | None:
    return next((float(data[name]) for name in names if data.get(name) is not None), None)


def _live(wired: Services, record: JobRecord, found: dict[str, Any]) -> dict[str, Any]:
    money = views.spending(wired, record.id)
    currency = found["cost"]["spent"]["currency"]
    return {
        "meter": drawings.meter(money.spent, money.reserved, money.cap),
        "cap": None if money.cap is None else Money.of(money.cap, currency).model_dump(),
        "queries_cap": money.queries_cap,
        "forecast": _forecast(found, money.spent, money.queries_spent),
        "can": _possible(record),
        "events": [views.event(line) for line in latest.events(wired.engine, record.id, _LINES)],
        "attempts": [
            views.attempt(line, currency) for line in latest.attempts(wired.engine, record.id, _LINES)
        ],
        "took": (record.finished_at or time.time()) - record.started_at if record.started_at else None,
    }


def _forecast(found: dict[str, Any], spent: int, queries: int) -> dict[str, str] | None:
    """What the job will have cost at its planned number of queries, at the price paid so far."""
    planned = found["progress"]["queries_planned"]
    if not planned or not queries or found["finished_at"]:
        return None
    return views.money(round(spent / queries * max(planned, queries)), found["cost"]["spent"]["currency"])


def _possible(record: JobRecord) -> dict[str, bool]:
    return {
        "pause": record.status in ("validating", "queued", "running"),
        "resume": record.status in ("paused", "pausing"),
        "cancel": not record.over and record.status != "cancelling",
        "limits": not record.over and record.spec.get("method") is not None,
        "clone": record.spec.get("method") is not None,
        "delete": record.over or record.status == "paused",
    }


def _forest(metrics: dict[str, Any]) -> Any:  # noqa: ANN401
    if not metrics["test"]:
        return None
    rows = [("This program", metrics["test"]["accuracy"], metrics["test"]["ci95"], True)]
    rivals: dict[str, Any] = metrics["baselines"] or {}
    rows += [(BASELINES.get(k, (k,))[0], v["accuracy"], v["ci95"], False) for k, v in rivals.items()]
    return drawings.forest(rows)


def _source(wired: Services, record: JobRecord) -> Any:  # noqa: ANN401
    try:
        return wired.connections.get(record.connection_id)
    except NotFound:  # deleted since
        return None


def _dataset(wired: Services, record: JobRecord) -> Any:  # noqa: ANN401
    try:
        return wired.datasets.get(record.dataset_id)
    except NotFound:  # deleted since, or an imported program
        return None


def views_body(record: JobRecord) -> dict[str, Any]:
    """The body that makes this job again."""
    return {name: value for name, value in record.spec.items() if value not in (None, {}, [])}
