"""Data sets: upload, report, images."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from app.api import datasets as rest
from app.api.deps import Wired
from app.dashboard import drawings, web
from app.errors import ReprogError

_PAGE = 24

router = web.router()
Filter = Annotated[str, Query(max_length=200)]


@router.get("/datasets", dependencies=[web.visitor("read")])
def datasets_page(request: Request, wired: Wired, after: str | None = None) -> Response:
    """Newest first, and the upload."""
    return web.render(
        request, "datasets.html", page=rest.list_datasets(wired, _PAGE, after or None), problem=None
    )


@router.post("/datasets", dependencies=[web.visitor("write")])
async def upload(
    request: Request, wired: Wired, next: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """A refusal comes back on a page of data sets. `next` is the connection of a new job to go on with."""
    try:
        made = await rest.upload_dataset(request, Response(), wired)
    except ReprogError as error:
        if web.partial(request):
            return web.problem(request, error)
        page = rest.list_datasets(wired, _PAGE)
        return web.render(request, "datasets.html", error.status, page=page, problem=error)
    target = "/new/data" if next else f"/datasets/{made['id']}"
    query: dict[str, Any] = {"connection_id": next, "dataset_id": made["id"]} if next else {}
    if not web.partial(request):
        return web.see(target, **query)
    answer = web.see(target, **query)
    return Response(status_code=204, headers={"HX-Redirect": answer.headers["location"]})


@router.get("/datasets/{dataset_id}", dependencies=[web.visitor("read")])
def dataset_page(
    dataset_id: str,
    request: Request,
    wired: Wired,
    split: Filter = "",
    label: Filter = "",
    after: int | None = None,
) -> Response:
    """Report, histogram and images."""
    found = rest.get_dataset(dataset_id, wired)
    items = rest.list_items(dataset_id, wired, _PAGE, after, split or None, label or None)
    picture = drawings.histogram(found["counts"], found["classes"][:60])
    values: dict[str, Any] = {
        "data": found,
        "items": items,
        "picture": picture,
        "split": split,
        "label": label,
    }
    return web.render(request, "dataset.html", **values)


@router.get("/datasets/{dataset_id}/items/{n}.png", dependencies=[web.visitor("read")])
def image(dataset_id: str, n: int, wired: Wired) -> Response:
    """One image."""
    return rest.get_image(dataset_id, n, wired)


@router.get("/datasets/{dataset_id}/report.json", dependencies=[web.visitor("read")])
def report_json(dataset_id: str, wired: Wired) -> dict[str, Any]:
    """The whole report."""
    return rest.get_report(dataset_id, wired)


@router.post("/datasets/{dataset_id}/delete", dependencies=[web.visitor("write")])
def delete(dataset_id: str, wired: Wired) -> Response:
    """With its images."""
    rest.delete_dataset(dataset_id, wired)
    return web.see("/datasets")
