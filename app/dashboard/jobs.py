"""The list of jobs, and what is done to one: the REST calls behind forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, cast

from fastapi import Form, Path, Query, Request
from starlette.responses import Response

from app.api import artifacts
from app.api import jobs as rest
from app.api.deps import Services, Wired
from app.api.jobs import Status
from app.api.schemas.jobs import CloneBody, JobPatch
from app.dashboard import web
from app.dashboard.overview import names
from app.dashboard.words import STATES
from app.errors import BadRequest
from app.jobs.spec import Money

_PAGE = 25
_STEER: dict[str, tuple[str, Callable[[str, Services], dict[str, Any]]]] = {
    "pause": ("write", rest.pause_job),
    "resume": ("spend", rest.resume_job),
    "cancel": ("write", rest.cancel_job),
}

router = web.router()


@router.get("/jobs", dependencies=[web.visitor("read")])
def jobs_page(
    request: Request,
    wired: Wired,
    after: str | None = None,
    status: Annotated[str, Query(max_length=20)] = "",
    connection_id: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Newest first, with boxes to compare."""
    only = cast("list[Status] | None", [status] if status in STATES else None)
    page = rest.list_jobs(wired, _PAGE, after or None, only, connection_id or None)
    counts = wired.jobs.counts()
    return web.render(
        request,
        "jobs.html",
        page=page,
        counts=counts,
        status=status,
        connection_id=connection_id,
        names=names(wired),
        connections=wired.connections.list(None, 50),
    )


@router.post("/jobs/import", dependencies=[web.visitor("write")])
async def import_artifact(request: Request, wired: Wired) -> Response:
    """An artifact from elsewhere, as a finished job."""
    form = await request.form(max_files=1, max_fields=4)
    connection = web.text(form, "connection_id") or None
    name = web.text(form, "name")[:200] or None
    made = await artifacts.import_artifact(request, Response(), wired, connection, name)
    return web.see(f"/jobs/{made['id']}")


@router.post("/jobs/{job_id}/clone", dependencies=[web.visitor("spend")])
def clone(
    job_id: str,
    request: Request,
    wired: Wired,
    name: Annotated[str, Form()] = "",
    seed: Annotated[str, Form()] = "",
) -> Response:
    """The same job again, perhaps with another name or seed."""
    given = {k: v.strip() for k, v in {"name": name, "seed": seed}.items() if v.strip()}
    made = rest.clone_job(job_id, request, Response(), wired, web.body(CloneBody, given))
    return web.see(f"/jobs/{made['id']}")


@router.post("/jobs/{job_id}/delete", dependencies=[web.visitor("write")])
def delete(job_id: str, wired: Wired) -> Response:
    """Only a job that is over or paused."""
    rest.delete_job(job_id, wired)
    return web.see("/jobs")


@router.post("/jobs/{job_id}/limits", dependencies=[web.visitor("spend")])
def limits(
    job_id: str,
    request: Request,
    wired: Wired,
    budget: Annotated[str | None, Form()] = None,
    max_queries: Annotated[str, Form()] = "",
    deadline: Annotated[str | None, Form()] = None,
) -> Response:
    """Raise (or lower) the caps; another deadline. An empty budget or deadline is none."""
    job = wired.jobs.get(job_id)
    currency = wired.connections.currencies()[job.connection_id]
    given: dict[str, Any] = {}
    if budget is not None:
        money = web.money(budget, currency)
        given["budget"] = money and web.body(Money, money)
    if max_queries.strip():
        given["max_queries"] = max_queries.strip()
    if deadline is not None:
        given["deadline"] = web.utc(deadline.strip()) if deadline.strip() else None
    if not given:
        raise BadRequest(
            "Neither a budget nor a number of queries nor a deadline was given.",
            param="budget",
            hint="Give one.",
        )
    rest.change_job(job_id, web.body(JobPatch, {"limits": given}), request, wired)
    return web.see(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/name", dependencies=[web.visitor("write")])
def rename(
    job_id: str,
    request: Request,
    wired: Wired,
    name: Annotated[str, Form()] = "",
    metadata: Annotated[str, Form()] = "",
) -> Response:
    """Another name, other notes."""
    given: dict[str, Any] = {"metadata": web.document(metadata, "metadata", '{"team": "skin"}')}
    if name.strip():
        given["name"] = name.strip()
    rest.change_job(job_id, web.body(JobPatch, given), request, wired)
    return web.see(f"/jobs/{job_id}")


def _steering(action: str, scope: str, act: Callable[[str, Services], dict[str, Any]]) -> None:
    def steer(job_id: Annotated[str, Path(max_length=40)], wired: Wired) -> Response:
        act(job_id, wired)
        return web.see(f"/jobs/{job_id}")

    router.post(f"/jobs/{{job_id}}/{action}", name=action, dependencies=[web.visitor(scope)])(steer)


for _action, (_scope, _act) in _STEER.items():
    _steering(_action, _scope, _act)
