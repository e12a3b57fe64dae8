"""Azure Custom Vision, Prediction API v3.0 and v3.1: the endpoint's name is the published name."""

from __future__ import annotations

import asyncio
import io
import re
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError

from app.api import auth
from app.api.compat import door
from app.api.deps import Prediction, Services, Wired
from app.api.predict import cost_headers, ranked
from app.errors import BadRequest, NotFound, ReprogError, UnsupportedType

_PATH = re.compile(
    r"v3\.\d(?:-preview)?/prediction/(?P<project>[^/]+)/(?P<task>classify|detect)/iterations/(?P<name>[^/]+)"
    r"/(?P<kind>image|url)(?:/nostore)?/?",
    re.IGNORECASE,
)
_NAMESPACE = uuid.UUID("8f7d2a52-6c1e-4a0b-9a57-0d8a3e1c5b64")
_CODES = {
    "image_unreadable": "BadRequestImageFormat",
    "image_rejected": "BadRequestImageFormat",
    "image_too_large": "BadRequestImageDimensions",
    "empty_body": "BadRequestImageStream",
    "image_url": "BadRequestImageUrl",
    "not_found": "NotFoundIteration",
    "endpoint_disabled": "BadRequestIterationNotPublished",
    "budget_exhausted": "BadRequestExceededQuota",
}
_BY_STATUS = {
    413: "BadRequestImageSizeBytes",
    415: "UnsupportedMediaType",
    503: "ErrorPredictionServiceUnavailable",
}
_STATUS = {422: 400, 402: 403, 409: 400}


def _word(_: Request, error: ReprogError) -> Response:
    """{code, message}, which the official clients read."""
    status = 400 if error.code == "image_too_large" else _STATUS.get(error.status, error.status)
    code = _CODES.get(error.code) or _BY_STATUS.get(error.status) or str(status)
    content = {"code": code, "message": door.said(error)}
    return Response(orjson.dumps(content), status, door.waiting(error), "application/json")


router = APIRouter(
    tags=["compatible formats"],
    route_class=door.speaking(_word),
    responses=door.answers(400, 401, 403, 404, 413, 415, 429, 500, 502, 503),
)
_PREFIX = "/compat/azure/customvision/{version}/prediction/{project}/classify/iterations/{name}"
_FORM = {"schema": {"type": "object", "properties": {"imageData": {"type": "string", "format": "binary"}}}}
_BODY = door.body(octet=door.BINARY, form=_FORM)


@router.post(f"{_PREFIX}/image", openapi_extra=_BODY, name="classify_image")
@router.post(f"{_PREFIX}/image/nostore", openapi_extra=_BODY, name="classify_image_nostore")
async def classify(version: str, project: str, name: str, request: Request, wired: Wired) -> Response:
    """As the service's ClassifyImage. Key: `Prediction-Key`. Any project id will do; all tags come, best
    first. The path may be in any letter case."""
    return await _classify(project, name, request, wired)


@router.post("/customvision/{rest:path}", include_in_schema=False, name="classify_at_root")
@router.post("/compat/azure/{rest:path}", include_in_schema=False)
async def classify_any_case(rest: str, request: Request, wired: Wired) -> Response:
    """Also at the root: the official Node client forgets the path of its endpoint's address."""
    first, _, below = rest.partition("/")
    found = _PATH.fullmatch(below if first.lower() == "customvision" else rest)
    if found is None or found["task"].lower() != "classify":
        raise NotFound("Resource not found.", hint="Classification of images is what is served.")
    if found["kind"].lower() == "url":
        await door.admit(request, wired, request.headers.get("prediction-key", ""))
        raise BadRequest("Images are not downloaded.", code="image_url", hint="Send the image itself.")
    return await _classify(found["project"], found["name"], request, wired)


async def _classify(project: str, name: str, request: Request, wired: Services) -> Response:
    await door.admit(request, wired, request.headers.get("prediction-key", ""))
    started = time.perf_counter()
    image = _image(await request.body(), request.headers.get("content-type", ""))
    live = await asyncio.to_thread(wired.endpoints.live, name)
    found = await wired.predictor.predict(name, [image], auth.caller_of(request))
    headers = cost_headers(found, time.perf_counter() - started)
    return Response(
        orjson.dumps(_answer(project, name, live.version, found)), 200, headers, "application/json"
    )


def _answer(project: str, name: str, version: int, found: Prediction) -> dict[str, Any]:
    """Ids are made of names, so the same tag has the same id in every answer."""
    now = datetime.now(UTC)
    return {
        "id": str(uuid.uuid4()),
        "project": project,
        "iteration": str(uuid.uuid5(_NAMESPACE, f"{name} {version}")),
        "created": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
        "predictions": [
            {
                "probability": row["score"],
                "tagId": str(uuid.uuid5(_NAMESPACE, f"{name} {row['label']}")),
                "tagName": row["label"],
                "tagType": "Regular",
            }
            for row in ranked(found.labels, found.scores[0], None)
        ],
    }


def _image(body: bytes, content_type: str) -> bytes:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        body = _part(body, content_type)
    elif kind not in ("application/octet-stream", "") and not kind.startswith("image/"):
        raise UnsupportedType("Send application/octet-stream or multipart/form-data.")
    if not body:
        raise BadRequest("No image data was received.", code="empty_body")
    return body


def _part(body: bytes, content_type: str) -> bytes:
    """The part `imageData`. Official clients send it without a filename, which form parsers of web frameworks
    take for text, decode, and refuse above a megabyte: here it stays bytes."""
    parts = dict[str, bytes]()

    def field(found: Any) -> None:  # noqa: ANN401 - the parser's own classes
        parts[(found.field_name or b"").decode("latin-1")] = found.value or b""

    def file(found: Any) -> None:  # noqa: ANN401
        found.file_object.seek(0)
        parts[(found.field_name or b"").decode("latin-1")] = found.file_object.read()

    try:
        parse_form({"Content-Type": content_type.encode("latin-1")}, io.BytesIO(body), field, file)
    except (FormParserError, ValueError) as error:
        raise BadRequest("The form cannot be read.", code="empty_body") from error
    return parts.get("imageData") or next(iter(parts.values()), b"")
