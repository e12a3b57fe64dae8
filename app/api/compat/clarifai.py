"""Clarifai v2 outputs: batches, an outcome for each input, concepts best first."""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from app.api import auth
from app.api.compat import door
from app.api.deps import Services, Wired
from app.api.predict import cost_headers, ranked
from app.api.problems import translate
from app.errors import BadRequest, ReprogError
from app.reprogramming import picture
from app.storage.keys import KeyRecord

Status = tuple[int, str]
OK: Status = (10000, "Ok")
_INPUTS: dict[str, Status] = {
    "image_unreadable": (30101, "Input has unsupported format"),
    "image_too_large": (30105, "Input over size limit"),
    "image_rejected": (30101, "Input has unsupported format"),
    "image_url": (30002, "Download failed; check URL"),
}
_ERRORS: dict[int, tuple[int, Status]] = {
    401: (401, (11009, "API key not found")),
    402: (402, (11006, "Account limits exceeded")),
    403: (403, (11007, "Insufficient scopes")),
    404: (404, (21200, "Model does not exist")),
    405: (405, (11103, "Method not allowed")),
    409: (400, (21353, "Model is not deployed")),
    413: (413, (40033, "Message size exceeded")),
    429: (429, (11005, "Making too many requests")),
    500: (500, (90500, "Server error")),
    502: (502, (21313, "Model prediction failed")),
    503: (503, (40031, "RPC server unavailable")),
}
_DEFAULT_CONCEPTS = 20


class _Image(BaseModel):
    base64: str | None = None
    url: str | None = None


class _Data(BaseModel):
    image: _Image = _Image()


class _Input(BaseModel):
    id: str | None = None
    data: _Data = _Data()


class _Concept(BaseModel):
    id: str | None = None
    name: str | None = None


class _Config(BaseModel):
    max_concepts: Annotated[int, Field(ge=0)] = 0
    min_value: Annotated[float, Field(ge=0, le=1)] = 0.0
    select_concepts: list[_Concept] = []


class _OutputInfo(BaseModel):
    output_config: _Config = _Config()


class _Model(BaseModel):
    output_info: _OutputInfo = _OutputInfo()


class _Body(BaseModel):
    """What is read of a request; other members are ignored, as the service does."""

    inputs: Annotated[list[_Input], Field(min_length=1, max_length=door.MOST_IMAGES)]
    model: _Model | None = None


@dataclass(frozen=True)
class _Scored:
    """(T,) scores under `labels`."""

    labels: tuple[str, ...]
    scores: NDArray[np.float64]


def word(_: Request, error: ReprogError) -> Response:
    status, code = _ERRORS.get(error.status, (400, (11102, "Invalid request")))
    content = {"status": status_of(code, door.said(error))}
    return Response(orjson.dumps(content), status, door.waiting(error), "application/json")


router = APIRouter(
    prefix="/compat/clarifai/v2",
    tags=["compatible formats"],
    route_class=door.speaking(word),
    responses=door.answers(207, 400, 401, 402, 403, 404, 413, 429, 500, 502, 503),
)
_BODY = door.body(json=door.JSON)


@router.post("/models/{name}/outputs", openapi_extra=_BODY, name="post_outputs")
@router.post("/models/{name}/versions/{version}/outputs", openapi_extra=_BODY, name="post_version_outputs")
@router.post("/users/{user}/apps/{app}/models/{name}/outputs", openapi_extra=_BODY, name="post_app_outputs")
@router.post(
    "/users/{user}/apps/{app}/models/{name}/versions/{version}/outputs",
    openapi_extra=_BODY,
    name="post_app_version_outputs",
)
async def outputs(name: str, request: Request, wired: Wired) -> Response:
    """As the service's PostModelOutputs, any user, app and version. Key: `Authorization: Key`. 207 when some
    inputs failed, 400 when all did."""
    await door.admit(request, wired, door.authorization(request, "key", "bearer"))
    started = time.perf_counter()
    asked = _read(await request.body())
    live = await asyncio.to_thread(wired.endpoints.live, name)
    outcomes, headers = await _score(
        wired, name, [_fetch(given) for given in asked.inputs], auth.caller_of(request)
    )
    config = (asked.model or _Model()).output_info.output_config
    model = describe(name, live.version)
    made = [_output(given, found, model, config) for given, found in zip(asked.inputs, outcomes, strict=True)]
    failures = sum(isinstance(found, ReprogError) for found in outcomes)
    status, code = (200, OK) if not failures else (207, (10010, "Mixed Success"))
    if failures == len(outcomes):
        status, code = 400, (10020, "Failure")
    headers["Server-Timing"] = f"total;dur={(time.perf_counter() - started) * 1000:.1f}"
    return Response(
        orjson.dumps({"status": status_of(code), "outputs": made}), status, headers, "application/json"
    )


def _read(body: bytes) -> _Body:
    try:
        return _Body.model_validate_json(body)
    except ValidationError as error:
        raise translate(error.errors(include_url=False, include_input=False)) from error


def _fetch(given: _Input) -> bytes | ReprogError:
    """One input's bytes, or why there are none."""
    image = given.data.image
    if image.base64:
        try:
            return door.from_base64(image.base64, "base64")
        except BadRequest as error:
            return error
    if image.url:
        return BadRequest("Images are not downloaded: send base64.", code="image_url")
    return BadRequest("Neither base64 nor url was given.")


async def _score(
    wired: Services, name: str, files: list[bytes | ReprogError], caller: KeyRecord
) -> tuple[list[_Scored | ReprogError], dict[str, str]]:
    """An outcome per file, and headers with the cost. A bad image fails alone; all else fails the request."""
    outcomes: list[_Scored | ReprogError | None] = [f if isinstance(f, ReprogError) else None for f in files]
    good = [n for n, file in enumerate(files) if isinstance(file, bytes)]
    headers = dict[str, str]()
    groups = [good] if good else []
    while groups:
        group = groups.pop()
        try:
            found = await wired.predictor.predict(
                name, [f for n in group if isinstance(f := files[n], bytes)], caller
            )
        except ReprogError as error:
            if error.code not in _INPUTS:
                raise
            if len(group) == 1:
                outcomes[group[0]] = error
            else:
                groups += await asyncio.to_thread(_apart, group, files)
            continue
        headers = _added(headers, cost_headers(found, 0.0))
        for n, row in zip(group, found.scores, strict=True):
            outcomes[n] = _Scored(found.labels, row)
    return [outcome for outcome in outcomes if outcome is not None], headers


def _apart(group: list[int], files: list[bytes | ReprogError]) -> list[list[int]]:
    """The unreadable ones each alone, the others together; one by one where all can be read (the source model
    refused one: answers that were paid for are kept)."""
    bad = list[int]()
    for n in group:
        file = files[n]
        try:
            picture.decode(file if isinstance(file, bytes) else b"")
        except ReprogError:
            bad.append(n)
    rest = [n for n in group if n not in bad]
    return [[n] for n in (bad or group)] + ([rest] if bad and rest else [])


def _added(before: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    queries = int(before.get("X-Remote-Queries", "0")) + int(more["X-Remote-Queries"])
    return {"X-Remote-Queries": str(queries)} if before else more


def _output(
    given: _Input, found: _Scored | ReprogError, model: dict[str, Any], config: _Config
) -> dict[str, Any]:
    """One element of `outputs`. The image is echoed as the service does: base64 comes back as "true"."""
    failed = isinstance(found, ReprogError)
    code = _INPUTS.get(found.code, (30104, "Input has invalid argument")) if failed else OK
    image = given.data.image
    return {
        "id": uuid.uuid4().hex,
        "status": status_of(code, found.detail if failed else ""),
        "created_at": _now(),
        "model": model,
        "input": {
            "id": given.id or uuid.uuid4().hex,
            "data": {"image": {"url": image.url} if image.url else {"base64": "true"}},
        },
        "data": {} if failed else {"concepts": _concepts(found, config)},
    }


def _concepts(found: _Scored, config: _Config) -> list[dict[str, Any]]:
    """By falling value; `value` is always there, even when 0: the official client reads its absence as 1."""
    rows = [
        {"id": concept_id(row["label"]), "name": row["label"], "value": row["score"], "app_id": "main"}
        for row in ranked(found.labels, found.scores, None)
    ]
    if config.select_concepts:
        wanted = {value for chosen in config.select_concepts for value in (chosen.id, chosen.name) if value}
        rows = [row for row in rows if wanted & {row["id"], row["name"]}]
    rows = [row for row in rows if row["value"] >= config.min_value]
    return rows[: config.max_concepts or _DEFAULT_CONCEPTS]


def concept_id(label: str) -> str:
    return "ai_" + hashlib.blake2b(label.encode(), digest_size=4).hexdigest()


def describe(name: str, version: int) -> dict[str, Any]:
    created = "2026-01-01T00:00:00.000000Z"
    version_id = hashlib.blake2b(f"{name} {version}".encode(), digest_size=16).hexdigest()
    trained = {"code": 21100, "description": "Model is trained and ready"}
    return {
        "id": name,
        "name": name,
        "created_at": created,
        "app_id": "main",
        "user_id": "reprog",
        "model_type_id": "visual-classifier",
        "output_info": {"output_config": {"concepts_mutually_exclusive": True}, "type": "concept"},
        "model_version": {"id": version_id, "created_at": created, "status": trained},
    }


def status_of(status: Status, details: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {"code": status[0], "description": status[1], "req_id": uuid.uuid4().hex}
    return made | ({"details": details} if details else {})


def _now() -> str:
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}Z"
