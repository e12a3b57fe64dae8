"""One job: what it does now, what it cost, what it learned."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any, get_args

from fastapi import Form, Request
from starlette.responses import Response

from app.api import evaluations, job_events, job_results, views
from app.api.deps import Services, Wired
from app.api.evaluations import EvaluationBody
from app.api.job_results import CheckpointId
from app.contracts import Cost
from app.dashboard import curves, drawings, web
from app.dashboard.words import BASELINES, PARTS
from app.errors import NotFound
from app.methods.heading import HeadType
from app.storage import checkpoints, latest
from app.storage.jobs import JobRecord

_LINES = 8
_TABLE = 25  # points of the curve in the table
_DRAWN = 120  # points of the curve that the server draws
_CHECKPOINTS = 60
_EVALUATIONS = 100
_MATRIX = 25  # classes; beyond, the commonest confusions are listed
_OURS = "Validation accuracy"

router = web.router()


def document(wired: Services, record: JobRecord) -> dict[str, Any]:
    """The job object of the REST surface."""
    return views.job(wired, record, wired.connections.currencies()[record.connection_id])


@router.get("/jobs/{job_id}", dependencies=[web.visitor("read")])
def job_page(
    job_id: str,
    request: Request,
    wired: Wired,
    checkpoint_id: CheckpointId = None,
    x: curves.Axis = "cost",
) -> Response:
    """Everything about a job; parts that take longer are fetched by the page, or followed as links."""
    record = wired.jobs.get(job_id)
    saved, count = checkpoints.spread(wired.engine, job_id, _CHECKPOINTS)
    shown = checkpoint_id or (saved[-1].id if saved else None)
    found, curve = document(wired, record), curves.document(wired, record, _DRAWN)
    return web.render(
        request,
        "job.html",
        job=found,
        **_live(wired, record, found),
        axis=x,
        axes=curves.AXES,
        curve=curves.table(curve, _TABLE),
        drawn=curves.picture([(_OURS, curve)], x),
        ahead=found["metrics"].get("forecast") or (None if record.over else _ahead(wired, job_id)),
        evaluations=evaluations.list_evaluations(job_id, wired, _EVALUATIONS)["data"],
        heads=get_args(HeadType),
        confused=_confused(found["metrics"]["test"]),
        checkpoints=[replace(one, metrics=views.validated(one.metrics, record.metrics)) for one in saved],
        levels=curves.levels(record.metrics),
        saved=count,
        shown=shown,
        forest=_forest(found["metrics"]),
        parts=_parts(found["metrics"]),
        source=_source(wired, record),
        dataset=_dataset(wired, record),
        body=views_body(record),
    )


@router.get("/jobs/{job_id}/live", dependencies=[web.visitor("read")])
def live_part(job_id: str, request: Request, wired: Wired) -> Response:
    """The part of the page that changes while the job runs."""
    record = wired.jobs.get(job_id)
    found = document(wired, record)
    return web.render(request, "_job_live.html", job=found, partial=True, **_live(wired, record, found))


@router.get("/jobs/{job_id}/stream", dependencies=[web.visitor("read")])
async def stream(job_id: str, request: Request, wired: Wired, after: int = 0) -> Response:
    """The server-sent events of the REST surface, for the page's own session."""
    return await job_events.stream_events(job_id, wired, after, request.headers.get("last-event-id"))


@router.get("/jobs/{job_id}/curve", dependencies=[web.visitor("read")])
def curve_json(job_id: str, wired: Wired) -> dict[str, Any]:
    """What the chart draws."""
    return curves.document(wired, wired.jobs.get(job_id))


@router.get("/jobs/{job_id}/events.json", dependencies=[web.visitor("read")])
def events_json(job_id: str, wired: Wired, after: int = 0) -> dict[str, Any]:
    """The events of the REST surface, for the page's own session."""
    return job_events.list_events(job_id, wired, 100, after)


@router.post("/jobs/{job_id}/evaluations", dependencies=[web.visitor("write")])
def evaluate(
    job_id: str,
    wired: Wired,
    head: Annotated[str, Form()] = "best",
    fused: Annotated[bool, Form()] = False,
    test: Annotated[bool, Form()] = False,
    labels_per_class: Annotated[str, Form()] = "",
    top: Annotated[str, Form()] = "",
    checkpoint_id: Annotated[str, Form()] = "",
) -> Response:
    """Another head on the stored answers: it costs nothing."""
    numbers = {"labels_per_class": labels_per_class, "top": top}
    mapping = {"type": head} | {name: value.strip() for name, value in numbers.items() if value.strip()}
    given = {"mapping": mapping, "fused": fused, "test": test, "checkpoint_id": checkpoint_id or None}
    body = web.body(EvaluationBody, given)
    evaluations.create_evaluation(job_id, body, Response(), wired)
    return web.see(f"/jobs/{job_id}#heads")


def _live(wired: Services, record: JobRecord, found: dict[str, Any]) -> dict[str, Any]:
    money = views.spending(wired, record.id)
    currency, (most, allowed) = found["cost"]["spent"]["currency"], _most(wired, record, money)
    return {
        "meter": drawings.meter(money.spent, money.reserved, most),
        "cap": None if money.cap is None else views.money(money.cap, currency),
        "most": None if most is None else views.money(most, currency),
        "left": None if most is None else views.money(most - money.spent - money.reserved, currency),
        "queries_cap": money.queries_cap,
        "allowed": allowed,
        "forecast": _forecast(found, money.spent, money.queries_spent),
        "can": _possible(record),
        "events": [views.event(line) for line in latest.events(wired.engine, record.id, _LINES)],
        "attempts": [
            views.attempt(line, currency) for line in latest.attempts(wired.engine, record.id, _LINES)
        ],
        "took": (record.finished_at or time.time()) - record.started_at if record.started_at else None,
    }


def _most(wired: Services, record: JobRecord, money: Cost) -> tuple[int | None, int | None]:
    """Micro-units and queries that both of its limits let it pay for, at today's price; None without any."""
    source = _source(wired, record)
    if source is None or source.price.micros == 0:
        return money.cap, money.queries_cap
    price, left = source.price.micros, list[int]()
    if money.cap is not None:
        left.append((money.cap - money.spent) // price)
    if money.queries_cap is not None:
        left.append(money.queries_cap - money.queries_spent)
    if not left:
        return None, None
    queries = max(min(left), 0)
    by_money = money.cap is not None and queries == left[0]
    return (money.cap if by_money else money.spent + queries * price), money.queries_spent + queries


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
        "limits": not record.over and "imported" not in record.spec,
        "clone": "imported" not in record.spec,
        "delete": record.over or record.status == "paused",
    }


def _forest(metrics: dict[str, Any]) -> Any:  # noqa: ANN401
    if not (metrics["test"] or {}).get("images"):
        return None
    rows = [("This program", metrics["test"]["accuracy"], metrics["test"]["ci95"], True)]
    rivals: dict[str, Any] = metrics["baselines"] or {}
    rows += [(BASELINES.get(k, (k,))[0], v["accuracy"], v["ci95"], False) for k, v in rivals.items()]
    return drawings.forest(rows)


def _parts(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool, bool]]:
    """(what is read, accuracy, is it this program, does it ask) of the scores alone, with pixels beside them,
    and the pixels alone."""
    found: dict[str, Any] = (metrics["verdict"] or {}).get("parts") or {}
    own = "scores" if "scores_and_pixels" in found else "scores_and_pixels"
    named = {own if name == "program" else name: value for name, value in found.items()}
    return [
        (words, named[name], name == own, name != "pixels") for name, words in PARTS.items() if name in named
    ]


def _ahead(wired: Services, job_id: str) -> list[dict[str, Any]] | None:
    return job_results.get_metrics(job_id, wired, "queries", _DRAWN)["forecast"]


def _confused(test: dict[str, Any] | None) -> list[tuple[int, int, int]]:
    """(true, predicted, images) of the commonest confusions of many classes; empty where a matrix fits."""
    if test is None or len(test.get("labels", ())) <= _MATRIX:
        return []
    cells = [(i, j, n) for i, row in enumerate(test["confusion"]) for j, n in enumerate(row) if n and i != j]
    return sorted(cells, key=lambda cell: -cell[2])[:30]


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
