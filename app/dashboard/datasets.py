"""Data sets: upload, report, images."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Query, Request
from starlette.responses import Response

from app.api import datasets as rest
from app.api.deps import Services, Wired
from app.dashboard import drawings, web
from app.errors import BadRequest, ReprogError
from app.jobs.dataset import FORMATS
from app.jobs.inspection import FAULTS

_PAGE = 24
#: What an upload is asked beside its file; an empty field is not sent.
_OPTIONS = ("name", "format", "seed", "label_column", "background")
_SEED = r"\d{1,10}"

#: What the upload's form offers.
CHOICES: dict[str, Any] = {
    "formats": FORMATS,
    "faults": {"leaks": "images that are in two splits", "two_labels": "images that are under two labels"},
}
router = web.router()
Filter = Annotated[str, Query(max_length=200)]


@router.get("/datasets", dependencies=[web.visitor("read")])
def datasets_page(request: Request, wired: Wired, after: str | None = None) -> Response:
    """Newest first, and the upload."""
    return _page(request, wired, after=after)


def _page(
    request: Request, wired: Services, *, after: str | None = None, problem: ReprogError | None = None
) -> Response:
    page = rest.list_datasets(wired, _PAGE, after or None)
    code = 200 if problem is None else problem.status
    return web.render(request, "datasets.html", code, page=page, problem=problem, **CHOICES)


@router.post("/datasets", dependencies=[web.visitor("write")])
async def upload(
    request: Request, wired: Wired, next: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """A refusal comes back on a page of data sets. `next` is the connection of a new job to go on with."""
    try:
        options = await _asked(request)
        made = await rest.upload_dataset(request, Response(), wired, **options)
    except ReprogError as error:
        if web.partial(request):
            return web.problem(request, error)
        return _page(request, wired, problem=error)
    target = "/new/data" if next else f"/datasets/{made['id']}"
    query: dict[str, Any] = {"connection_id": next, "dataset_id": made["id"]} if next else {}
    if not web.partial(request):
        return web.see(target, **query)
    answer = web.see(target, **query)
    return Response(status_code=204, headers={"HX-Redirect": answer.headers["location"]})


async def _asked(request: Request) -> dict[str, Any]:
    """The options beside the file. The form is read once: the upload finds it read. Raises BadRequest."""
    most = rest.MOST_FILES
    form = await request.form(max_files=most, max_fields=most + len(_OPTIONS) + len(FAULTS))
    given: dict[str, Any] = {name: web.text(form, name) for name in _OPTIONS if web.text(form, name)}
    if faults := [value for value in form.getlist("allow") if isinstance(value, str)]:
        given["allow"] = ",".join(faults)
    if "seed" in given:
        if not re.fullmatch(_SEED, given["seed"]) or int(given["seed"]) >= 2**31:
            raise BadRequest("The seed is no whole number.", param="seed", hint="0 to 2147483647.")
        given["seed"] = int(given["seed"])
    return given


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
