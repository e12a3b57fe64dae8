"""/v1/artifacts/import: a program learned elsewhere, ready to be published here."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import UploadFile

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.problems import declared
from app.api.schemas.jobs import JobView
from app.errors import BadRequest, NotFound, UnsupportedType
from app.jobs import artifact

_KINDS = ("", "application/zip", "application/x-zip-compressed", "application/octet-stream")
_BINARY = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], responses=declared())


@router.post(
    "/import",
    status_code=201,
    response_model=JobView,
    dependencies=[auth.needs("write")],
    openapi_extra={"requestBody": {"required": True, "content": {"application/zip": _BINARY}}},
)
async def import_artifact(
    request: Request,
    response: Response,
    wired: Wired,
    connection_id: Annotated[
        str | None, Query(max_length=40, description="The source model; absent: the one in the artifact.")
    ] = None,
    name: Annotated[str | None, Query(min_length=1, max_length=200)] = None,
) -> dict[str, Any]:
    """Take in the zip of `GET /v1/jobs/{id}/artifact`. The answer is a finished job to publish from."""
    data = await _body(request)
    created = await asyncio.to_thread(_import, wired, data, connection_id, name)
    response.headers["Location"] = f"/v1/jobs/{created['id']}"
    return created


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind in _KINDS:
        return await request.body()
    if kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=4) as form:
            upload = form.get("file")
            if isinstance(upload, UploadFile):
                return await upload.read()
        raise BadRequest(
            "The form has no file.", code="missing_field", param="file", hint="curl -F file=@a.zip"
        )
    raise UnsupportedType(f"An artifact is no {kind}.", hint="Send application/zip.")


def _import(wired: Services, data: bytes, connection_id: str | None, name: str | None) -> dict[str, Any]:
    program, blob, config = artifact.read(data)
    known: dict[str, Any] = _mapping(config.get("connection"))
    chosen = connection_id or str(known.get("id", ""))
    try:
        connection = wired.connections.get(chosen)
    except NotFound as error:
        if connection_id is not None:
            raise
        raise BadRequest(
            "The artifact's connection is not one of this service.",
            code="connection_needed",
            param="connection_id",
            hint="Make a connection to the same source model and add ?connection_id= to the address.",
        ) from error
    if connection.labels and not set(connection.labels) & set(program.source_labels):
        raise BadRequest(
            "The connection's model has none of the source labels that the program reads.",
            code="source_mismatch",
            param="connection_id",
            hint=f"The program reads, among others: {', '.join(program.source_labels[:5])}.",
        )
    job: dict[str, Any] = _mapping(config.get("job"))
    spec = {
        "imported": True,
        "seed": job["seed"] if isinstance(job.get("seed"), int) else 0,
        "method": _mapping(job.get("method")),
        "limits": _mapping(job.get("limits")),
    }
    title = name or str(job.get("name") or "imported program")[:200]
    metrics = {k: v for k, v in _mapping(config.get("metrics")).items() if isinstance(v, dict)}
    metrics.get("best", {}).pop("validation_images", None)  # its interval came with it
    record = wired.jobs.adopt(name=title, spec=spec, connection_id=connection.id, blob=blob, metrics=metrics)
    return views.job(wired, record, connection.price.currency)


def _mapping(value: object) -> dict[str, Any]:
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}
