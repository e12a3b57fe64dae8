"""Parts of a job's page that need the program: pictures, mapping, and what cached answers say."""

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np
from fastapi import Query, Request
from PIL import Image
from starlette.responses import Response

from app.api import job_results as rest
from app.api.deps import Wired
from app.api.job_results import CheckpointId
from app.dashboard import drawings, readings, web
from app.dashboard.words import KINDS
from app.errors import NotFound
from app.jobs import dataset
from app.reprogramming import picture
from app.reprogramming import program as programs
from app.reprogramming.transform import render_many

_STRIP = 8
_SIDE = 192  # pixels of a picture on a page
_KEPT = {"Cache-Control": "private, max-age=3600"}
Number = Annotated[int, Query(ge=0, le=100_000)]

router = web.router()
_READ = [web.visitor("read")]


@router.get("/jobs/{job_id}/program.png", dependencies=_READ)
def program_png(job_id: str, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """The program's views side by side, amplified."""
    answer = rest.get_picture(job_id, wired, checkpoint_id)
    if checkpoint_id is not None:
        answer.headers.update(_KEPT)
    return answer


@router.get("/jobs/{job_id}/samples/{n}.webp", dependencies=_READ)
def sample_image(
    job_id: str, n: int, wired: Wired, view: Number = 0, checkpoint_id: CheckpointId = None
) -> Response:
    """An image as the source model is shown it."""
    shown = rest.get_sample(job_id, n, wired, min(view, 64), checkpoint_id)
    return Response(_small(bytes(shown.body)), media_type="image/webp", headers=_KEPT)


@router.get("/jobs/{job_id}/frame.webp", dependencies=_READ)
def frame_image(job_id: str, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """The first test image as each view shows it to the source model, side by side as in `program.png`."""
    record = wired.jobs.get(job_id)
    program = programs.from_bytes(wired.jobs.program(checkpoint_id or wired.jobs.latest_program(job_id).id))
    data = wired.datasets.get(record.dataset_id)
    counts = data.images()
    n = counts.get("train", 0) + counts.get("val", 0)  # items lie split by split
    png = dataset.item_png(wired.datasets.folder(data.id), n)
    image = picture.fit(picture.decode(png), *program.canonical)
    shown = np.concatenate(list(render_many(program.views, image[None])), axis=1)
    out = io.BytesIO()
    Image.fromarray(shown).resize((_SIDE * len(program.views), _SIDE)).save(out, "WEBP", quality=85)
    kept = _KEPT if checkpoint_id else {}
    return Response(out.getvalue(), media_type="image/webp", headers=kept)


def _small(png: bytes) -> bytes:
    """A picture to look at, not to ask with."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.thumbnail((_SIDE, _SIDE))
        image.save(out, "WEBP", quality=80)
    return out.getvalue()


@router.get("/jobs/{job_id}/artifact.zip", dependencies=_READ)
def artifact_zip(job_id: str, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """The program to take away."""
    return rest.get_artifact(job_id, wired, checkpoint_id)


@router.get("/jobs/{job_id}/queries.csv", dependencies=_READ)
def queries_csv(job_id: str, wired: Wired) -> Response:
    """The whole ledger."""
    return rest.list_queries(job_id, wired, 20, 0, "csv")


@router.get("/jobs/{job_id}/mapping", dependencies=_READ)
def mapping(
    job_id: str, request: Request, wired: Wired, view: Number = 0, checkpoint_id: CheckpointId = None
) -> Response:
    """Which source labels speak for which target label: drawing and table."""
    found = rest.get_mapping(job_id, wired, checkpoint_id)
    flows = drawings.strongest(found["rows"], view)
    drawn = drawings.flow(flows, found["target_labels"]) if flows else None
    values: dict[str, Any] = {"mapping": found, "flows": flows, "picture": drawn, "view": view}
    return _part(request, "_mapping.html", "Label mapping", wired.jobs.get(job_id), **values)


@router.get("/jobs/{job_id}/strip", dependencies=_READ)
def strip(job_id: str, request: Request, wired: Wired, checkpoint_id: CheckpointId = None) -> Response:
    """Test images before and after, with the source labels each got and the target label made of them."""
    record = wired.jobs.get(job_id)
    try:
        found = readings.read(wired, record, checkpoint_id)
    except NotFound as error:
        return _part(request, "_strip.html", "Before and after", record, rows=[], why=error)
    names = found.program.target_labels
    rows = [
        {
            "n": int(found.items[i]),
            "label": names[found.labels[i]],
            "predicted": names[found.predicted[i]],
            "score": float(found.target[i].max()),
            "views": [found.heard(i, view) for view in range(len(found.program.views))],
        }
        for i in found.spread(_STRIP)
    ]
    return _part(
        request,
        "_strip.html",
        "Before and after",
        record,
        rows=rows,
        shown=found.checkpoint_id,
        kind=KINDS[found.program.score_kind],
    )


@router.get("/jobs/{job_id}/cell", dependencies=_READ)
def cell(job_id: str, request: Request, wired: Wired, true: Number, predicted: Number) -> Response:
    """The images of one cell of the confusion matrix."""
    record = wired.jobs.get(job_id)
    found = readings.read(wired, record)
    names = found.program.target_labels
    if max(true, predicted) >= len(names):
        raise NotFound(f"The program has {len(names)} labels.", hint="Labels count from 0.")
    pictures = found.cell(true, predicted)
    chosen = {"true": names[true], "predicted": names[predicted], "right": true == predicted}
    return _part(request, "_cell.html", "Images of a cell", record, pictures=pictures, **chosen)


@router.get("/jobs/{job_id}/reliability", dependencies=_READ)
def reliability(job_id: str, request: Request, wired: Wired) -> Response:
    """Do scores mean what they say?"""
    record = wired.jobs.get(job_id)
    try:
        points = readings.read(wired, record).reliability()
    except NotFound as error:
        return _part(request, "_reliability.html", "Reliability", record, points=[], why=error)
    drawn = drawings.reliability(points)
    return _part(request, "_reliability.html", "Reliability", record, points=points, picture=drawn)


def _part(request: Request, template: str, title: str, record: Any, **values: Any) -> Response:  # noqa: ANN401
    """The part alone for a script, in a page of its own for a reader without."""
    given = {"job_id": record.id, "job_name": record.name, "dataset_id": record.dataset_id, **values}
    if web.partial(request):
        return web.render(request, template, **given)
    return web.render(request, "part.html", part=template, title=title, **given)
