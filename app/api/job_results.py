"""What a job leaves behind: curve, ledger, programs, pictures, artifact."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, Number, cell, page
from app.api.problems import declared
from app.api.schemas.base import Page
from app.api.schemas.jobs import CheckpointView, Curve, QueryLine
from app.errors import NotFound
from app.jobs import artifact
from app.jobs import dataset as images
from app.jobs.forecast import forecast
from app.jobs.progress import rfc3339
from app.jobs.spec import MICROS
from app.reprogramming import picture
from app.reprogramming import program as programs
from app.reprogramming.program import Program
from app.reprogramming.transform import render
from app.storage.checkpoints import Point
from app.storage.jobs import JobRecord

_COLUMNS = (
    "id", "sent_at", "done_at", "purpose", "images", "billed", "outcome", "price", "cost", "currency",
    "http_status", "code", "request_id", "model_version",
)  # fmt: skip
_BATCH = 1000
_POINT = ("x", "step", "queries", "cost", "time")

CheckpointId = Annotated[str | None, Query(max_length=40, description="Absent: the best.")]
Png: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "PNG"}}

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=declared())


def _currency(wired: Services, job: JobRecord) -> str:
    return wired.connections.currencies()[job.connection_id]


@router.get("/{job_id}/metrics", response_model=Curve, dependencies=[auth.needs("read")])
def get_metrics(
    job_id: str,
    wired: Wired,
    x: Annotated[Literal["queries", "cost", "time"], Query(description="What to draw against.")] = "queries",
    points: Annotated[int, Query(ge=2, le=5000, description="About so many, thinned evenly.")] = 500,
) -> dict[str, Any]:
    """The learning curve, and what more queries would buy (`forecast`: p10, p50 and p90 of the validation
    accuracy). `x` is queries paid, money spent, or seconds since the first step."""
    job = wired.jobs.get(job_id)
    currency, found = _currency(wired, job), wired.jobs.points(job_id, points)
    start = job.started_at or (found[0].at if found else 0.0)

    def along(point: Point) -> float:
        return {"queries": point.queries, "cost": point.spent_micros / MICROS, "time": point.at - start}[x]

    data = [
        {
            **{k: v for k, v in views.validated(point.data, job.metrics).items() if k not in _POINT},
            "x": along(point),
            "step": point.step,
            "queries": point.queries,
            "cost": views.money(point.spent_micros, currency),
            "time": rfc3339(point.at),
        }
        for point in found
    ]
    return {"job_id": job_id, "x": x, "data": data, "forecast": _forecast(job, found, currency)}


def _forecast(job: JobRecord, points: list[Point], currency: str) -> list[dict[str, Any]] | None:
    """What more queries would buy, at the price paid so far."""
    judged = [(p.queries, p.data["val_accuracy"]) for p in points if "val_accuracy" in p.data]
    if not judged or not points[-1].queries:
        return None
    images = (job.metrics.get("best") or {}).get("validation_images", 0)
    return forecast(judged, images, points[-1].spent_micros // points[-1].queries, currency)


@router.get(
    "/{job_id}/queries",
    response_model=Page[QueryLine],
    dependencies=[auth.needs("read")],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def list_queries(
    job_id: str,
    wired: Wired,
    limit: Limit = 20,
    after: Number = 0,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Or Accept: text/csv.")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Any:  # noqa: ANN401
    """The ledger: one line per request to the provider, oldest first. CSV has all lines at once."""
    job = wired.jobs.get(job_id)
    currency = _currency(wired, job)
    if format == "csv" or (format is None and accept.lower().startswith("text/csv")):
        named = {"Content-Disposition": f'attachment; filename="{job_id}-queries.csv"'}
        return StreamingResponse(_csv(wired, job_id, currency), 200, named, "text/csv; charset=utf-8")
    found = wired.ledger.list_attempts(job_id, after, limit + 1)
    return page(found, limit, lambda line: views.attempt(line, currency), lambda line: line.id)


def _csv(wired: Services, job_id: str, currency: str) -> Iterator[str]:
    yield ",".join(_COLUMNS) + "\n"
    after = 0
    while lines := wired.ledger.list_attempts(job_id, after, _BATCH):
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for line in lines:
            row = views.attempt(line, currency)
            row |= {"price": row["price"]["amount"], "cost": row["cost"]["amount"], "currency": currency}
            writer.writerow([cell(row[name]) for name in _COLUMNS])
        yield out.getvalue()
        after = lines[-1].id


@router.get("/{job_id}/checkpoints", response_model=Page[CheckpointView], dependencies=[auth.needs("read")])
def list_checkpoints(job_id: str, wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """The programs stored so far, newest first; any can be published."""
    job = wired.jobs.get(job_id)
    found = wired.jobs.programs(job.id, after, limit + 1)
    return page(
        found,
        limit,
        lambda record: {
            "id": record.id,
            "job_id": job_id,
            "step": record.step,
            "metrics": views.validated(record.metrics, job.metrics),
            "queries": record.queries,
            "created_at": rfc3339(record.created_at),
        },
        lambda record: record.id,
    )


def _program(wired: Services, job_id: str, checkpoint_id: str | None) -> tuple[Program, bytes, str]:
    """(program, its bytes, checkpoint id). Raises NotFound."""
    job = wired.jobs.get(job_id)
    chosen = checkpoint_id or wired.jobs.latest_program(job.id).id
    if checkpoint_id is not None and not wired.jobs.has_program(job_id, checkpoint_id):
        raise NotFound(f"Job {job_id} has no checkpoint {checkpoint_id!r}.", param="checkpoint_id")
    blob = wired.jobs.program(chosen)
    return programs.from_bytes(blob), blob, chosen


@router.get("/{job_id}/mapping", response_model=dict[str, Any], dependencies=[auth.needs("read")])
def get_mapping(job_id: str, wired: Wired, checkpoint_id: CheckpointId = None) -> dict[str, Any]:
    """How the program reads the source labels: a weight per view, source label and target label."""
    program, _, chosen = _program(wired, job_id, checkpoint_id)
    described = artifact.describe(program)
    described["kind"] = described.pop("mapping")
    bias = dict(zip(program.target_labels, program.mapping.bias.tolist(), strict=True))
    return {
        "object": "mapping",
        "job_id": job_id,
        "checkpoint_id": chosen,
        **described,
        "bias": bias,
        "rows": artifact.mapping_rows(program),
    }


@router.get(
    "/{job_id}/program.png", response_class=Response, dependencies=[auth.needs("read")], responses=Png
)
def get_picture(job_id: str, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """The program's views side by side: frame and overlay, amplified, the image's place in grey."""
    return Response(artifact.picture(_program(wired, job_id, checkpoint_id)[0]), media_type="image/png")


@router.get("/{job_id}/samples", response_model=dict[str, Any], dependencies=[auth.needs("read")])
def list_samples(
    job_id: str,
    wired: Wired,
    limit: Annotated[int, Query(ge=1, le=100)] = 8,
    checkpoint_id: CheckpointId = None,
) -> dict[str, Any]:
    """Some test images before and after: as they are, and as the source model is shown them."""
    program, _, chosen = _program(wired, job_id, checkpoint_id)
    job = wired.jobs.get(job_id)
    data = wired.datasets.get(job.dataset_id)
    counts = data.images()
    first = counts.get("train", 0) + counts.get("val", 0)  # items lie split by split
    here = f"/v1/jobs/{job_id}/samples"
    found = images.items(wired.datasets.folder(data.id), first, max(counts.get("test", 0), 1))
    stride = max(1, len(found) // limit)
    return {
        "object": "list",
        "checkpoint_id": chosen,
        "data": [
            {
                "n": item["n"],
                "label": item["label"],
                "split": item["split"],
                "before": f"/v1/datasets/{data.id}/items/{item['n']}/image",
                "after": [
                    f"{here}/{item['n']}.png?view={view}&checkpoint_id={chosen}"
                    for view in range(len(program.views))
                ],
            }
            for item in found[::stride][:limit]
        ],
        "has_more": False,
        "next_cursor": None,
    }


@router.get(
    "/{job_id}/samples/{n}.png", response_class=Response, dependencies=[auth.needs("read")], responses=Png
)
def get_sample(
    job_id: str,
    n: int,
    wired: Wired,
    view: Annotated[int, Query(ge=0, le=programs.MAX_VIEWS)] = 0,
    checkpoint_id: CheckpointId = None,
) -> Response:
    """Item n of the job's data set as one view shows it to the source model."""
    program, _, _ = _program(wired, job_id, checkpoint_id)
    if view >= len(program.views):
        raise NotFound(
            f"The program has {len(program.views)} views.", param="view", hint="Views count from 0."
        )
    folder = wired.datasets.folder(wired.datasets.get(wired.jobs.get(job_id).dataset_id).id)
    image = picture.fit(picture.decode(images.item_png(folder, min(n, 2**53))), *program.canonical)
    return Response(artifact.png(render(program.views[view], image[None])[0]), media_type="image/png")


@router.get(
    "/{job_id}/artifact",
    response_class=Response,
    dependencies=[auth.needs("read")],
    responses={200: {"content": {"application/zip": {}}, "description": "The artifact."}},
)
def get_artifact(job_id: str, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """The program as a zip: safetensors, config, model card, mapping and picture. It holds no secret."""
    program, blob, chosen = _program(wired, job_id, checkpoint_id)
    job = wired.jobs.get(job_id)
    facts = _facts(wired, job, chosen)
    headers = {"Content-Disposition": f'attachment; filename="{job_id}.zip"'}
    return Response(artifact.build(program, blob, facts), 200, headers, "application/zip")


def _facts(wired: Services, job: JobRecord, checkpoint_id: str) -> dict[str, Any]:
    shown = views.job(wired, job, _currency(wired, job))
    facts: dict[str, Any] = {
        "job": {name: shown[name] for name in ("id", "name", "seed", "method", "limits", "finished_at")},
        "checkpoint_id": checkpoint_id,
        "metrics": shown["metrics"],
        "cost": shown["cost"],
        "connection": {"id": job.connection_id},
        "dataset": None,
    }
    try:
        source = wired.connections.get(job.connection_id)
        facts["connection"] |= {
            "provider": source.provider, "base_url": source.base_url, "model": source.model,
            "model_version": source.model_version,
        }  # fmt: skip
        data = wired.datasets.get(job.dataset_id)
        facts["dataset"] = {"id": data.id, "name": data.name, "content_sha256": data.content_sha256}
    except NotFound:  # deleted since: the program stands by itself
        pass
    return facts
