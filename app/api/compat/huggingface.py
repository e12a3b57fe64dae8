"""Hugging Face image classification: raw bytes or base64 in, [{label, score}] out."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api import auth
from app.api.compat import door
from app.api.deps import Wired
from app.api.predict import cost_headers, ranked
from app.api.problems import translate
from app.api.schemas.endpoints import LabelScore
from app.errors import BadRequest, ReprogError


class Parameters(BaseModel):
    """Others that clients send, such as function_to_apply, are read past: scores are probabilities."""

    model_config = ConfigDict(extra="ignore")

    top_k: Annotated[int, Field(ge=1)] | None = None


class Asked(BaseModel):
    inputs: str
    parameters: Parameters | None = None


def _word(_: Request, error: ReprogError) -> Response:
    """{error: text}. A body that cannot be used is 400 there."""
    status = 400 if error.status in (413, 415, 422) else error.status
    return Response(
        orjson.dumps({"error": door.said(error)}), status, door.waiting(error), "application/json"
    )


router = APIRouter(
    prefix="/compat/hf",
    tags=["compatible formats"],
    route_class=door.speaking(_word),
    responses=door.answers(400, 401, 402, 403, 404, 409, 413, 429, 500, 502, 503),
)
_BODY = door.body(octet=door.BINARY, json=door.JSON)


@router.post("/{name}", response_model=list[LabelScore], openapi_extra=_BODY)
@router.post("/models/{name}", response_model=list[LabelScore], openapi_extra=_BODY, name="classify_model")
async def classify(name: str, request: Request, wired: Wired) -> Response:
    """As the inference service's image classification. Key: `Authorization: Bearer`. All labels come unless
    `parameters.top_k` says how many."""
    await door.admit(request, wired, door.authorization(request, "bearer"))
    started = time.perf_counter()
    image, top_k = _read(await request.body(), request.headers.get("content-type", ""))
    found = await wired.predictor.predict(name, [image], auth.caller_of(request))
    answer: list[dict[str, Any]] = ranked(found.labels, found.scores[0], top_k)
    headers = cost_headers(found, time.perf_counter() - started)
    return Response(orjson.dumps(answer), 200, headers, "application/json")


def _read(body: bytes, kind: str) -> tuple[bytes, int | None]:
    """(encoded image, top_k). Official clients send images without a Content-Type; none starts with `{`."""
    if not body:
        raise BadRequest("The body is empty.", code="empty_body")
    if "json" not in kind.lower() and body.lstrip()[:1] != b"{":
        return body, None
    try:
        asked = Asked.model_validate_json(body)
    except ValidationError as error:
        raise translate(error.errors(include_url=False, include_input=False)) from error
    text = asked.inputs.partition(";base64,")[2] or asked.inputs
    return door.from_base64(text, "inputs"), asked.parameters.top_k if asked.parameters else None
