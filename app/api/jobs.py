"""/v1/jobs: create, read, steer. What a job leaves behind is in `job_results`, its events in `job_events`."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Query, Request, Response

from app import providers
from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, page
from app.api.problems import declared, storable
from app.api.schemas.base import Page
from app.api.schemas.jobs import CloneBody, JobPatch, JobView
from app.contracts import Price
from app.errors import BadRequest, BudgetExhausted, Conflict
from app.jobs import counsel
from app.jobs import quote as quotes
from app.jobs.quote import Plan
from app.jobs.spec import JobSpec, amount
from app.storage.connections import ConnectionRecord
from app.storage.datasets import DatasetRecord
from app.storage.jobs import OVER, JobRecord
from app.storage.keys import KeyRecord

Status = Literal[
    "validating", "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"
]
IfNoneMatch = Annotated[
    str | None, Header(max_length=1000, description="The ETag of the last read: 304 if same.")
]
Prefer = Annotated[
    str | None, Header(max_length=200, description="`wait=N`: answer on a change, or after N s.")
]

LONGEST_WAIT = 60
_LOOK_EVERY = 0.25  # seconds between looks of a long poll
_COME_BACK = "2"  # Retry-After of a job that goes on, seconds
_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})")

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=declared(402))


@router.post("/quote", response_model=dict[str, Any], dependencies=[auth.needs("read")])
def quote_job(body: JobSpec, wired: Wired) -> dict[str, Any]:
    """What the job would ask and cost, stage by stage. Nothing is sent or stored."""
    plan, connection, data = _planned(wired, body)
    warnings = _concerns(body, plan, connection, data)
    return quotes.quote(body, plan, connection.price, connection.limits, data.images()["test"], warnings)


def _planned(wired: Services, spec: JobSpec) -> tuple[Plan, ConnectionRecord, DatasetRecord]:
    """Raises NotFound, BadRequest (`budget_too_small`, `currency_mismatch`, a method's option)."""
    storable(spec)
    connection = wired.connections.get(spec.connection_id)
    data = wired.datasets.get(spec.dataset_id)
    known = len(connection.labels)
    return quotes.plan(spec, data.images(), len(data.classes), known, connection.price), connection, data


def _concerns(
    spec: JobSpec, plan: Plan, connection: ConnectionRecord, data: DatasetRecord
) -> list[dict[str, str]]:
    """Raises BadRequest `too_many_classes`."""
    per_class = {name: sum(row.get(name, 0) for row in data.counts.values()) for name in data.classes}
    info = providers.make(
        connection.provider, connection.base_url, connection.model, "", connection.options
    ).info
    found = counsel.concerns(spec, per_class, len(connection.labels), info.score_kind, plan)
    return found + counsel.enlarged(spec.method.build().size or info.input_size, info.enlarges_below)


@router.post("", status_code=201, response_model=JobView, dependencies=[auth.needs("spend")])
def create_job(body: JobSpec, request: Request, response: Response, wired: Wired) -> dict[str, Any]:
    """Start a job: learn a program, judge it once on the test split, publish it if asked. What it spends is
    charged to the key that started it."""
    record = _start(wired, body, auth.caller_of(request))
    response.headers["Location"] = f"/v1/jobs/{record.id}"
    return _view(wired, record)


def _start(wired: Services, spec: JobSpec, caller: KeyRecord) -> JobRecord:
    plan, connection, data = _planned(wired, spec)
    _concerns(spec, plan, connection, data)
    payer = caller.account(connection.price.currency)
    if payer is not None:
        _afford(wired, payer, spec, connection.price)
    wired.connections.secret(connection.id)  # a secret that is not there is told now, not by a paused job
    budget = spec.limits.budget
    record = wired.jobs.create(
        name=spec.name,
        spec=views.stored_spec(spec),
        metadata=spec.metadata,
        connection_id=spec.connection_id,
        dataset_id=spec.dataset_id,
        cap=None if budget is None else budget.micros,
        queries_cap=spec.limits.max_queries,
        payer=payer,
    )
    wired.runner.enqueue(record.id)
    return record


def _afford(wired: Services, payer: str, spec: JobSpec, price: Price) -> None:
    """Raises BudgetExhausted `key_budget_exhausted` when the job may cost more than the key has left.
    Jobs that the key started before may spend that too: then the last of them is paused."""
    found = views.spending(wired, payer)
    if found.cap is None:
        return
    left = found.cap - found.spent - found.reserved
    most = spec.limits.max_queries * price.micros
    most = most if spec.limits.budget is None else min(most, spec.limits.budget.micros)
    if most > left:
        error = BudgetExhausted(
            f"The job may cost {amount(most)}, and {amount(left)} is left of the key's budget.",
            reason="budget_exhausted",
            scope=payer,
            hint="Lower the job's limits, or raise the key's budget.",
        )
        error.code = "key_budget_exhausted"
        raise error


@router.get("", response_model=Page[JobView], dependencies=[auth.needs("read")])
def list_jobs(
    wired: Wired,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[list[Status] | None, Query(description="Only jobs in one of these.")] = None,
    connection_id: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """Newest first."""
    found = wired.jobs.list(after, limit + 1, status or (), connection_id)
    currency = wired.connections.currencies()
    return page(
        found, limit, lambda job: views.job(wired, job, currency[job.connection_id]), lambda job: job.id
    )


@router.get(
    "/{job_id}",
    response_model=JobView,
    dependencies=[auth.needs("read")],
    responses={304: {"description": "Not changed since the read that gave the ETag."}},
)
async def get_job(
    job_id: str, wired: Wired, if_none_match: IfNoneMatch = None, prefer: Prefer = None
) -> Response:
    """The job object. With `Prefer: wait=N` the answer comes when it has changed since `If-None-Match` (or
    since the call), when the job is over, or after N seconds (60 at most)."""
    asked = _WAIT.search(prefer or "")
    wait = min(int(asked[1]), LONGEST_WAIT) if asked else 0
    until = time.monotonic() + wait
    body, tag, over = await asyncio.to_thread(_read, wired, job_id)
    known = if_none_match or (tag if wait else "")
    while wait and not wired.closing.is_set() and not over and _same(tag, known) and time.monotonic() < until:
        await asyncio.sleep(_LOOK_EVERY)
        body, tag, over = await asyncio.to_thread(_read, wired, job_id)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if not over:
        headers["Retry-After"] = _COME_BACK
    if asked:
        headers["Preference-Applied"] = f"wait={wait}"
    if if_none_match is not None and _same(tag, if_none_match):
        return Response(None, 304, headers)
    return Response(body, 200, headers, "application/json")


def _read(wired: Services, job_id: str) -> tuple[bytes, str, bool]:
    """The job object, its ETag, and whether it will not change by itself any more."""
    record = wired.jobs.get(job_id)
    body = orjson.dumps(_view(wired, record))
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    return body, tag, record.status in (*OVER, "paused")


def _same(tag: str, known: str) -> bool:
    return known.strip() == "*" or tag in [part.strip().removeprefix("W/") for part in known.split(",")]


def _view(wired: Services, record: JobRecord) -> dict[str, Any]:
    return views.job(wired, record, wired.connections.currencies()[record.connection_id])


@router.patch("/{job_id}", response_model=JobView, dependencies=[auth.needs("write")])
def change_job(job_id: str, body: JobPatch, request: Request, wired: Wired) -> dict[str, Any]:
    """Change name, metadata or limits (this needs `spend`). Limits may fall no lower than what is spent, and
    hold from the job's next segment (a minute at most)."""
    if body.limits is not None:
        auth.demand(auth.caller_of(request), "spend")
    storable(body)
    record = wired.jobs.get(job_id)
    spec = dict(record.spec)
    changed = {name: value for name in ("name", "metadata") if (value := getattr(body, name)) is not None}
    spec |= changed
    if body.limits is not None:
        given = body.limits.model_dump(mode="json", include=body.limits.model_fields_set)
        if given.get("max_queries", 1) is None:
            raise BadRequest("max_queries cannot be null.", param="limits.max_queries", hint="Give a number.")
        spec["limits"] = {**record.spec["limits"], **given}
    checked = _validated(spec, record)
    if body.limits is not None:
        if record.over:
            raise Conflict(
                f"The job has {record.status}: its limits are history.",
                code="invalid_state",
                hint="Clone it with other limits.",
            )
        _planned(wired, checked)
        budget = checked.limits.budget
        cap = None if budget is None else budget.micros
        wired.ledger.set_caps(job_id, cap, checked.limits.max_queries)
    return _view(wired, wired.jobs.edit(job_id, **changed, spec=views.stored_spec(checked)))


def _validated(spec: dict[str, Any], record: JobRecord) -> JobSpec:
    if "imported" in record.spec:
        raise Conflict("An imported program has no limits or settings to change.", code="invalid_state")
    try:
        return JobSpec.model_validate(spec)
    except ValueError as error:
        found = getattr(error, "errors", list[dict[str, Any]])()
        first = found[0] if found else {"msg": str(error), "loc": ()}
        raise BadRequest(str(first["msg"]), param=".".join(map(str, first["loc"])) or None) from error


@router.delete("/{job_id}", status_code=204, dependencies=[auth.needs("write")])
def delete_job(job_id: str, wired: Wired) -> None:
    """Only a job that is over or paused. Its spending stays in the usage, its programs with endpoints."""
    wired.jobs.delete(job_id)


@router.post("/{job_id}/pause", response_model=JobView, dependencies=[auth.needs("write")])
def pause_job(job_id: str, wired: Wired) -> dict[str, Any]:
    """Stop asking. Requests in flight are waited for and kept."""
    return _view(wired, wired.jobs.pause(job_id))


@router.post("/{job_id}/resume", response_model=JobView, dependencies=[auth.needs("spend")])
def resume_job(job_id: str, wired: Wired) -> dict[str, Any]:
    """Go on from the last checkpoint."""
    record = wired.jobs.resume(job_id)
    wired.runner.enqueue(job_id)
    return _view(wired, record)


@router.post("/{job_id}/cancel", response_model=JobView, dependencies=[auth.needs("write")])
def cancel_job(job_id: str, wired: Wired) -> dict[str, Any]:
    """Stop for good. Programs stored so far stay."""
    return _view(wired, wired.jobs.cancel(job_id))


@router.post("/{job_id}/clone", status_code=201, response_model=JobView, dependencies=[auth.needs("spend")])
def clone_job(
    job_id: str, request: Request, response: Response, wired: Wired, body: CloneBody | None = None
) -> dict[str, Any]:
    """A new job of the same body. Images that were asked before cost nothing again."""
    record = wired.jobs.get(job_id)
    changed = {} if body is None else body.model_dump(exclude_none=True)
    clone = _start(wired, _validated({**record.spec, **changed}, record), auth.caller_of(request))
    response.headers["Location"] = f"/v1/jobs/{clone.id}"
    return _view(wired, clone)
