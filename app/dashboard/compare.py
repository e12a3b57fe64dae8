"""Two to six jobs beside each other."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from app.api.deps import Services, Wired
from app.dashboard import curves, drawings, readings, web
from app.dashboard.job import document
from app.dashboard.overview import names
from app.errors import BadRequest, NotFound
from app.storage.jobs import JobRecord

MOST = 6
_IMAGES = 6
_DRAWN = 120  # points of a curve that the server draws

router = web.router()
Chosen = Annotated[list[str] | None, Query(alias="job", max_length=20)]


def _records(wired: Services, chosen: list[str] | None) -> list[JobRecord]:
    picked = list(dict.fromkeys(chosen or []))
    if not 2 <= len(picked) <= MOST:
        raise BadRequest(
            f"{len(picked)} jobs were chosen.",
            param="job",
            hint=f"Tick 2 to {MOST} jobs in the list, then compare.",
        )
    return [wired.jobs.get(ident) for ident in picked]


@router.get("/compare", dependencies=[web.visitor("read")])
def compare(request: Request, wired: Wired, job: Chosen = None, x: curves.Axis = "cost") -> Response:
    """Figures, curves and programs in columns."""
    records = _records(wired, job)
    found = [document(wired, record) for record in records]
    rows = [
        (one["name"], one["metrics"]["test"]["accuracy"], one["metrics"]["test"]["ci95"], True)
        for one in found
        if (one["metrics"]["test"] or {}).get("images")
    ]
    same = len({record.dataset_id for record in records}) == 1 and bool(records[0].dataset_id)
    lines = [(record.name, curves.document(wired, record, _DRAWN)) for record in records]
    programs = {record.id for record in records if wired.jobs.programs(record.id, None, 1)}
    return web.render(
        request,
        "compare.html",
        jobs=found,
        forest=drawings.forest(rows) if rows else None,
        names=names(wired),
        same_data=same,
        programs=programs,
        settings=_settings(records),
        axis=x,
        axes=curves.AXES,
        drawn=curves.picture(lines, x),
        chosen="&".join(f"job={record.id}" for record in records),
    )


def _settings(records: list[JobRecord]) -> list[tuple[str, list[str]]]:
    """Members of the method in which the jobs differ."""
    methods: list[dict[str, Any]] = [record.spec.get("method") or {} for record in records]
    members = sorted({name for method in methods for name in method})
    rows = [(name, [str(method.get(name, "default")) for method in methods]) for name in members]
    return [row for row in rows if len(set(row[1])) > 1]


@router.get("/compare/images", dependencies=[web.visitor("read")])
def images(request: Request, wired: Wired, job: Chosen = None) -> Response:
    """The same test images, and what each job's program makes of them."""
    records = _records(wired, job)
    columns: list[tuple[str, readings.Reading | None]] = []
    for record in records:
        try:
            columns.append((record.name, readings.read(wired, record)))
        except NotFound:
            columns.append((record.name, None))
    known = [found for _, found in columns if found is not None]
    rows: list[dict[str, Any]] = []
    for i in known[0].spread(_IMAGES) if known else ():
        item, first = int(known[0].items[i]), known[0]
        says = [None if found is None else _says(found, item) for _, found in columns]
        rows.append({"n": item, "label": first.program.target_labels[first.labels[i]], "says": says})
    values: dict[str, Any] = {"columns": columns, "rows": rows, "dataset_id": records[0].dataset_id}
    if web.partial(request):
        return web.render(request, "_compare_images.html", **values)
    return web.render(request, "part.html", part="_compare_images.html", title="Compared on images", **values)


def _says(found: readings.Reading, item: int) -> tuple[str, float] | None:
    where = (found.items == item).nonzero()[0]
    if not len(where):
        return None
    row = found.target[where[0]]
    return found.program.target_labels[int(row.argmax())], float(row.max())
