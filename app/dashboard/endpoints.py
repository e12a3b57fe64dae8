"""Endpoints: try one, see what it costs, go back a version, copy a line that works."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Annotated, Any

from fastapi import Form, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from app.api import auth, views
from app.api import endpoints as rest
from app.api import predict as rest_predict
from app.api.deps import Services, Wired
from app.api.schemas.endpoints import EndpointBody, EndpointPatch, PredictParameters
from app.dashboard import snippets, web
from app.errors import BadRequest, NotFound, ReprogError
from app.jobs import dataset
from app.reprogramming import program as programs
from app.storage import latest

_PAGE = 25
_SAMPLES = 10
_MEASURED = 200  # requests that latency is taken from
_MOST_FILES = 8
_TOP = 5  # labels of an answer

router = web.router()


@router.get("/endpoints", dependencies=[web.visitor("read")])
def endpoints_page(request: Request, wired: Wired, after: str | None = None) -> Response:
    """Newest first."""
    return web.render(request, "endpoints.html", page=rest.list_endpoints(wired, _PAGE, after or None))


@router.post("/endpoints", dependencies=[web.visitor("write")])
def publish(
    wired: Wired,
    name: Annotated[str, Form()],
    job_id: Annotated[str, Form()],
    checkpoint_id: Annotated[str, Form()] = "",
    overwrite: Annotated[bool, Form()] = False,
    budget: Annotated[str, Form()] = "",
    max_queries: Annotated[str, Form()] = "",
) -> Response:
    """Serve a job's program under a name."""
    currency = wired.connections.currencies()[wired.jobs.get(job_id).connection_id]
    given: dict[str, Any] = {
        "name": name.strip(),
        "job_id": job_id,
        "overwrite": overwrite,
        "checkpoint_id": checkpoint_id or None,
        "limits": _limits(currency, budget, max_queries),
    }
    made = rest.create_endpoint(web.body(EndpointBody, given), Response(), wired)
    return web.see(f"/endpoints/{made['name']}")


def _limits(currency: str, budget: str, max_queries: str) -> dict[str, Any]:
    """Both caps; an empty field is none."""
    return {"budget": web.money(budget, currency), "max_queries": max_queries.strip() or None}


@router.get("/endpoints/{name}", dependencies=[web.visitor("read")])
def endpoint_page(name: str, request: Request, wired: Wired, after: int | None = None) -> Response:
    """One endpoint. `after` is of its versions."""
    return _page(request, wired, name, after=after)


def _page(
    request: Request, wired: Services, name: str, result: dict[str, Any] | None = None,
    problem: ReprogError | None = None, inputs: str = "", after: int | None = None,
) -> Response:  # fmt: skip
    found = rest.get_endpoint(name, wired)
    connection = wired.connections.get(found["connection_id"])
    views_asked = len(programs.from_bytes(wired.jobs.program(found["checkpoint_id"])).views)
    return web.render(
        request,
        "endpoint.html",
        200 if problem is None else problem.status,
        endpoint=found,
        versions=rest.list_versions(name, wired, 20, after),
        per_prediction={
            "queries": views_asked,
            "cost": views.money(views_asked * connection.price.micros, connection.price.currency),
        },
        latency=_latency(wired, found["id"]),
        samples=_samples(wired, found["job_id"]),
        inputs=inputs or json.dumps({"inputs": [found["input"]["example"]]}, ensure_ascii=False),
        snippets=snippets.of_endpoint(
            str(request.base_url).rstrip("/"),
            name,
            keys=wired.settings.auth == "keys",
            record=found["input"]["example"],
        ),
        result=result,
        problem=problem,
    )


def _latency(wired: Services, scope: str) -> dict[str, float] | None:
    """Seconds of the last answered requests to the provider."""
    done = latest.attempts(wired.engine, scope, _MEASURED)
    took = [
        line.done_at - line.sent_at
        for line in done
        if line.done_at is not None and line.outcome == "answered"
    ]
    if len(took) < 2:
        return None
    return {"p50": median(took), "p95": quantiles(took, n=20, method="inclusive")[-1], "n": len(took)}


def _samples(wired: Services, job_id: str) -> dict[str, Any]:
    """Some test images of the job's data set; none when it is gone."""
    try:
        data = wired.datasets.get(wired.jobs.get(job_id).dataset_id)
    except NotFound:
        return {"dataset_id": "", "items": []}
    counts = data.images()
    first, there = counts.get("train", 0) + counts.get("val", 0), counts.get("test", 0)
    stride = max(1, there // _SAMPLES)
    found = dataset.items(wired.datasets.folder(data.id), first, there)[::stride][:_SAMPLES] if there else []
    return {"dataset_id": data.id, "items": found}


@router.post("/endpoints/{name}/predict", dependencies=[web.visitor("predict")])
async def try_it(name: str, request: Request, wired: Wired) -> Response:
    """Ask it about dropped, pasted or chosen images, or about records in JSON."""
    records = ""
    try:
        async with request.form(max_files=_MOST_FILES, max_fields=8) as form:
            records = web.text(form, "inputs")
            most = web.body(PredictParameters, {"top_k": web.text(form, "top_k") or _TOP}).top_k
            asked = await _asked(form, wired, name)
        started = time.perf_counter()
        answer = await wired.predictor.predict(name, asked, auth.caller_of(request))
    except ReprogError as error:
        return (
            web.problem(request, error)
            if web.partial(request)
            else await asyncio.to_thread(_page, request, wired, name, None, error, records)
        )
    result = {
        "lists": [rest_predict.ranked(answer.labels, row, most) for row in answer.scores],
        "queries": answer.queries,
        "cost": views.money(answer.cost_micros, answer.currency),
        "seconds": time.perf_counter() - started,
    }
    if web.partial(request):
        found = await asyncio.to_thread(rest.get_endpoint, name, wired)
        return web.render(request, "_prediction.html", result=result, cost=found["cost"])
    return await asyncio.to_thread(_page, request, wired, name, result, None, records)


async def _asked(form: FormData, wired: Services, name: str) -> Sequence[object]:
    """What was chosen: records, a test image, or files. Raises BadRequest."""
    if records := web.text(form, "inputs"):
        return (await rest_predict.read_json(records.encode(), wired, name))[0]
    if sample := web.text(form, "sample"):
        return [await asyncio.to_thread(_sample, wired, name, sample)]
    sent = [await value.read() for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if files := [data for data in sent if data]:
        return files
    raise BadRequest("No image was chosen.", param="file", hint="Drop, paste or choose an image.")


def _sample(wired: Services, name: str, sample: str) -> bytes:
    job = wired.jobs.get(wired.endpoints.get(name).live.job_id)
    n = int(sample) if sample.isascii() and sample.isdecimal() and len(sample) < 12 else -1
    return dataset.item_png(wired.datasets.folder(wired.datasets.get(job.dataset_id).id), n)


@router.post("/endpoints/{name}/change", dependencies=[web.visitor("write")])
def change(
    name: str,
    wired: Wired,
    version: Annotated[str, Form()] = "",
    enabled: Annotated[str, Form()] = "",
    budget: Annotated[str | None, Form()] = None,
    max_queries: Annotated[str, Form()] = "",
    canary_queries: Annotated[str, Form()] = "",
    canary_minutes: Annotated[str, Form()] = "",
    canary_tolerance: Annotated[str, Form()] = "",
    canary_budget: Annotated[str, Form()] = "",
) -> Response:
    """Another version, on or off, caps (empty fields: none), a canary (0 queries take it away)."""
    given: dict[str, Any] = {k: v for k, v in {"version": version, "enabled": enabled}.items() if v}
    currency = wired.connections.currencies()[wired.endpoints.get(name).live.connection_id]
    if canary_queries.strip():
        canary = {"queries": canary_queries, "tolerance": _scaled(canary_tolerance, 0.01)}
        canary |= {"every_seconds": _scaled(canary_minutes, 60)}
        canary |= {"budget": web.money(canary_budget, currency)}
        told = {k: v for k, v in canary.items() if v is not None}
        given["canary"] = None if canary_queries.strip() == "0" else told
    if budget is not None:
        given["limits"] = _limits(currency, budget, max_queries)
    rest.change_endpoint(name, web.body(EndpointPatch, given), wired)
    return web.see(f"/endpoints/{name}")


def _scaled(typed: str, unit: float) -> float | str | None:
    """A number of a form in the unit of the REST body; what is no number is left to its schema."""
    try:
        return round(float(typed) * unit, 9) if typed.strip() else None
    except ValueError:
        return typed


@router.post("/endpoints/{name}/delete", dependencies=[web.visitor("write")])
def delete(name: str, wired: Wired) -> Response:
    """Stop serving it."""
    rest.delete_endpoint(name, wired)
    return web.see("/endpoints")
