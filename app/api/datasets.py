"""/v1/datasets: labelled images of the target task."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import tempfile
import zipfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import FormData, UploadFile

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import After, Limit, Number, page
from app.api.problems import declared
from app.api.schemas.base import Page
from app.api.schemas.datasets import DatasetItem, DatasetView
from app.errors import BadRequest, UnsupportedType
from app.jobs import dataset as images
from app.jobs.dataset import FORMATS
from app.jobs.inspection import FAULTS
from app.reprogramming import picture

_RAW = {
    "", "application/zip", "application/x-zip-compressed", "application/x-zip", "application/x-npz",
    "application/octet-stream", "application/x-tar", "application/gzip", "application/x-gzip",
    "application/x-compressed-tar", "application/tar", "application/vnd.apache.parquet", "text/csv",
    "text/plain", "text/tab-separated-values", "application/csv", "application/vnd.ms-excel",
}  # fmt: skip
MOST_FILES = 1000  # of one form
_BATCH = 500  # items looked at between two looks at the filter

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], responses=declared())
_FILE = {"type": "string", "format": "binary"}
_BINARY = {"schema": _FILE}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"oneOf": [_FILE, {"type": "array", "items": _FILE}]},
            "label": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        },
    }
}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": _BINARY,
            "application/x-npz": _BINARY,
            "application/octet-stream": _BINARY,
            "text/csv": {"schema": {"type": "string"}},
            "multipart/form-data": _FORM,
        },
    }
}


@router.post(
    "", status_code=201, response_model=DatasetView, dependencies=[auth.needs("write")], openapi_extra=_UPLOAD
)
async def upload_dataset(
    request: Request,
    response: Response,
    wired: Wired,
    name: Annotated[
        str | None, Query(min_length=1, max_length=200, description="Absent: the file's.")
    ] = None,
    format: Annotated[str, Query(max_length=40, description="`auto` goes by the bytes.")] = "auto",
    seed: Annotated[int, Query(ge=0, le=2**31 - 1, description="Of the splits that are made.")] = 0,
    allow: Annotated[
        str,
        Query(max_length=100, description="Faults to go on with, comma-separated: `leaks`, `two_labels`."),
    ] = "",
    label_column: Annotated[
        str | None, Query(max_length=200, description="Of a table or parquet file; absent: `label`, `class`.")
    ] = None,
    background: Annotated[
        str,
        Query(max_length=40, description="Colour under transparent pixels: `rrggbb` or a name."),
    ] = "white",
) -> dict[str, Any]:
    """Upload a zip or tar (folder per class, imagefolder, CSV manifest), an npz (MedMNIST), parquet, or text
    without pictures (rows, series, sequences), as the raw body or as `file` of a form; or single images, a
    `file` each, with a `label` each or in folders. The report says what became of every file."""
    if format not in FORMATS:
        raise BadRequest(
            f"There is no format {format!r}.", param="format", hint=f"One of: {', '.join(FORMATS)}."
        )
    faults = [word.strip() for word in allow.split(",") if word.strip()]
    if unknown := set(faults) - set(FAULTS):
        raise BadRequest(
            f"There is no fault {min(unknown)!r}.", param="allow", hint=f"Any of: {', '.join(FAULTS)}."
        )
    below = picture.colour(background)
    async with _spooled(request, wired) as (path, filename):
        title = name or Path(filename).stem[:200] or "data set"
        read = partial(
            images.ingest, path, format, seed=seed, allow=faults, label_column=label_column, background=below
        )
        created = await asyncio.to_thread(_ingest, wired, read, seed, title)
    response.headers["Location"] = f"/v1/datasets/{created['id']}"
    return created


def _ingest(wired: Services, read: Callable[..., images.Ingested], seed: int, name: str) -> dict[str, Any]:
    ident, folder = wired.datasets.reserve()
    taken = read(target=folder)
    try:
        record = wired.datasets.create(
            ident,
            name=name,
            classes=taken.classes,
            counts=taken.counts,
            content_sha256=taken.content_sha256,
            report=taken.report | {"canonical_size": [taken.height, taken.width]},
            seed=seed,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return views.dataset(record)


@asynccontextmanager
async def _spooled(request: Request, wired: Services) -> AsyncGenerator[tuple[Path, str]]:
    """The upload in a file on the data disk, and its name. The edge has limited its size."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in _RAW and kind != "multipart/form-data":
        raise UnsupportedType(
            f"A data set cannot be read from {kind}.",
            hint="Send application/zip, application/x-npz or text/csv; or a form: one `file`, or images as a "
            "`file` and a `label` each.",
        )
    uploads = wired.settings.data_dir / "uploads"
    await asyncio.to_thread(uploads.mkdir, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=uploads, prefix="upload-") as file:
        if kind == "multipart/form-data":
            async with request.form(max_files=MOST_FILES, max_fields=MOST_FILES) as form:
                filename = await asyncio.to_thread(_from_form, form, file)
        else:
            async for chunk in request.stream():
                await asyncio.to_thread(file.write, chunk)
            filename = ""
        await asyncio.to_thread(file.flush)
        if file.tell() == 0:
            raise BadRequest(
                "The upload is empty.", code="empty_body", hint="curl --data-binary @images.zip sends a file."
            )
        yield Path(file.name), filename


def _from_form(form: FormData, out: IO[bytes]) -> str:
    """Write the form's one file as it is, or several images as a zip with a manifest of `label`s; without
    these the folders in their names are the labels. Returns a name. Raises BadRequest."""
    files = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
    labels = [value for value in form.getlist("label") if isinstance(value, str)]
    if not files:
        raise BadRequest(
            "The form has no file.", code="missing_field", param="file", hint="curl -F file=@images.zip"
        )
    if len(files) == 1 and not labels:
        shutil.copyfileobj(files[0].file, out)
        return files[0].filename or ""
    if labels and len(labels) != len(files):
        raise BadRequest(
            f"The form has {len(files)} files and {len(labels)} labels.",
            param="label",
            hint="Send one `label` for each `file`, in the same order.",
        )
    rows = [["path", "label"]]
    with zipfile.ZipFile(out, "w") as archive:
        for n, file in enumerate(files):
            path = f"{n}-{Path(file.filename or 'image').name}" if labels else file.filename or str(n)
            with archive.open(zipfile.ZipInfo(path), "w") as entry:
                shutil.copyfileobj(file.file, entry)
            rows.append([path, labels[n] if labels else ""])
        if labels:
            manifest = io.StringIO(newline="")
            csv.writer(manifest).writerows(rows)
            archive.writestr("labels.csv", manifest.getvalue())
    return ""


@router.get("", response_model=Page[DatasetView], dependencies=[auth.needs("read")])
def list_datasets(wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first, without their reports."""
    found = wired.datasets.list(after, limit + 1)
    return page(found, limit, lambda record: views.dataset(record, report=False), lambda record: record.id)


@router.get("/{dataset_id}", response_model=DatasetView, dependencies=[auth.needs("read")])
def get_dataset(dataset_id: str, wired: Wired) -> dict[str, Any]:
    """One data set."""
    return views.dataset(wired.datasets.get(dataset_id))


@router.delete("/{dataset_id}", status_code=204, dependencies=[auth.needs("write")])
def delete_dataset(dataset_id: str, wired: Wired) -> None:
    """Delete it with its images; 409 while a job uses it."""
    wired.datasets.delete(dataset_id)


@router.get("/{dataset_id}/report", response_model=dict[str, Any], dependencies=[auth.needs("read")])
def get_report(dataset_id: str, wired: Wired) -> dict[str, Any]:
    """What became of every file sent, how the labels were read, histogram, duplicates and leaks."""
    return {"object": "dataset.report", "dataset_id": dataset_id, **wired.datasets.get(dataset_id).report}


@router.get("/{dataset_id}/items", response_model=Page[DatasetItem], dependencies=[auth.needs("read")])
def list_items(
    dataset_id: str,
    wired: Wired,
    limit: Limit = 20,
    after: Number | None = None,
    split: Annotated[str | None, Query(pattern="^(train|val|test)$")] = None,
    label: Annotated[str | None, Query(max_length=200)] = None,
) -> dict[str, Any]:
    """The images in their order, by split and label if asked."""
    folder = wired.datasets.folder(wired.datasets.get(dataset_id).id)
    wanted = {name: value for name, value in {"split": split, "label": label}.items() if value is not None}
    found: list[dict[str, Any]] = []
    at = 0 if after is None else after + 1
    while len(found) <= limit:
        batch = images.items(folder, at, _BATCH)
        found += [item for item in batch if all(item[name] == value for name, value in wanted.items())]
        at += len(batch)
        if len(batch) < _BATCH:
            break
    here = f"/v1/datasets/{dataset_id}/items"
    return page(
        found[: limit + 1],
        limit,
        lambda item: item | {"image": f"{here}/{item['n']}/image"},
        lambda item: item["n"],
    )


@router.get(
    "/{dataset_id}/items/{n}/image",
    response_class=Response,
    dependencies=[auth.needs("read")],
    responses={200: {"content": {"image/png": {}}, "description": "The image as stored."}},
)
def get_image(dataset_id: str, n: int, wired: Wired) -> Response:
    """One image as PNG."""
    folder = wired.datasets.folder(wired.datasets.get(dataset_id).id)
    if n >= 2**53:
        n = -1
    png = images.item_png(folder, n)
    return Response(
        png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"}
    )
