"""/v1/jobs/{id}/evaluations: other heads on a job's program, fitted for free on the answers it paid for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from app.api import auth
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, page
from app.api.problems import declared
from app.api.schemas.base import Body, Page
from app.api.schemas.jobs import EvaluationView
from app.errors import Conflict, NotFound
from app.jobs import dataset as datasets
from app.jobs import rehead
from app.jobs.progress import rfc3339
from app.jobs.rehead import HeadSpec, Shelf
from app.methods.heading import Head
from app.reprogramming import program as programs
from app.storage.checkpoints import CheckpointRecord
from app.storage.jobs import JobRecord

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=declared())


class EvaluationBody(Body):
    """Which head, on which program."""

    mapping: Annotated[HeadSpec, Field(default_factory=HeadSpec)]
    fused: Annotated[bool, Field(description="Compact pixel features beside the scores.")] = False
    checkpoint_id: Annotated[str | None, Field(max_length=40, description="Absent: the best.")] = None
    test: Annotated[
        bool, Field(description="Look at the test images too. Each look makes them less of a test.")
    ] = False


@router.post(
    "/{job_id}/evaluations",
    status_code=201,
    response_model=EvaluationView,
    dependencies=[auth.needs("write")],
)
def create_evaluation(job_id: str, body: EvaluationBody, response: Response, wired: Wired) -> dict[str, Any]:
    """Fit another head on the program's stored answers, judge it, keep it as a checkpoint to publish. Costs
    nothing; 409 `answers_missing` says what the answers would cost where they were never bought."""
    job = wired.jobs.get(job_id)
    chosen = body.checkpoint_id or wired.jobs.latest_program(job.id).id
    if not wired.jobs.has_program(job_id, chosen):
        raise NotFound(f"Job {job_id} has no checkpoint {chosen!r}.", param="checkpoint_id")
    program = programs.from_bytes(wired.jobs.program(chosen))
    head = Head(body.mapping.type, body.fused, body.mapping.labels_per_class, body.mapping.top)
    if body.fused and head.counted:
        raise Conflict(
            f"A {head.type} mapping is counted from scores and cannot read pixels.",
            code="fused_needs_fit",
            param="fused",
            hint="Use the mapping best, linear or rbf.",
        )
    shelf = _shelf(wired, job, program.views[0].size)
    made, told = rehead.evaluate(program, shelf, head, job.spec.get("seed", 0), test=body.test)
    if body.test:
        told["test"]["looks"] = 2 + sum("test" in old.metrics for old in _all(wired, job_id))
    config = {"of": chosen, "mapping": body.mapping.model_dump(), "fused": body.fused}
    record = wired.jobs.add_evaluation(job_id, programs.to_bytes(made), config=config, metrics=told)
    response.headers["Location"] = f"/v1/jobs/{job_id}/evaluations/{record.id}"
    return _view(job_id, record)


@router.get("/{job_id}/evaluations", response_model=Page[EvaluationView], dependencies=[auth.needs("read")])
def list_evaluations(job_id: str, wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first."""
    found = wired.jobs.evaluations(wired.jobs.get(job_id).id, after, limit + 1)
    return page(found, limit, lambda record: _view(job_id, record), lambda record: record.id)


@router.get(
    "/{job_id}/evaluations/{evaluation_id}",
    response_model=EvaluationView,
    dependencies=[auth.needs("read")],
)
def get_evaluation(job_id: str, evaluation_id: str, wired: Wired) -> dict[str, Any]:
    """One of them."""
    wired.jobs.get(job_id)
    for record in _all(wired, job_id):
        if record.id == evaluation_id:
            return _view(job_id, record)
    raise NotFound(f"Job {job_id} has no evaluation {evaluation_id!r}.", param="evaluation_id")


def _all(wired: Services, job_id: str) -> list[CheckpointRecord]:
    return wired.jobs.evaluations(job_id, None, 10_000)


def _shelf(wired: Services, job: JobRecord, size: int) -> Shelf:
    """Raises NotFound when the data set or the connection is gone."""
    data = wired.datasets.get(job.dataset_id)
    left_out = {(line["split"], line["index"]) for line in job.metrics.get("left_out", [])}
    return Shelf(
        recall=lambda images: wired.recall(job.connection_id, images),
        data=datasets.load(wired.datasets.folder(data.id), max_side=size),
        price=wired.connections.get(job.connection_id).price,
        left_out=left_out,
    )


def _view(job_id: str, record: CheckpointRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "job_id": job_id,
        "checkpoint_id": record.id,
        "of": record.config["of"],
        "mapping": record.config["mapping"],
        "fused": record.config["fused"],
        "metrics": record.metrics,
        "queries": 0,
        "created_at": rfc3339(record.created_at),
    }
