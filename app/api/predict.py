"""POST /v1/endpoints/{name}/predict: images in, labels with scores out, costs in the headers."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from app.api import auth
from app.api.deps import Prediction, Services, Wired
from app.api.problems import declared, translate
from app.api.schemas.endpoints import LabelScore, PredictBody
from app.errors import BadRequest, ReprogError, UnsupportedType
from app.jobs.spec import amount

MOST_FILES = 32
_DATA_URL = re.compile(r"data:[a-z0-9.+-]*/?[a-z0-9.+-]*(;[a-z0-9=.+-]+)*;base64,", re.IGNORECASE)
_RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # the last: curl's own default


class Direct(APIRoute):
    """Declared as any route, and called without FastAPI's search for what it needs: that took a tenth of a
    prediction's time. Dependencies are those of `auth.needs`; the function is (name, request, services)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        checks = [needed.dependency for needed in self.dependencies if needed.dependency is not None]

        async def handle(request: Request) -> Response:
            wired: Services = request.app.state.services
            for check in checks:
                await check(request, wired, None)
            return await self.endpoint(request.path_params["name"], request, wired)

        return handle


router = APIRouter(
    prefix="/v1/endpoints", tags=["endpoints"], responses=declared(402, 502), route_class=Direct
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILES = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "array", "maxItems": MOST_FILES, "items": {"type": "string", "format": "binary"}}
        },
    }
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Cost-USD": {"schema": {"type": "string"}, "description": "Decimal; for prices in USD."},
            "X-Cost": {"schema": {"type": "string"}, "description": "Decimal and currency."},
            "X-Remote-Queries": {"schema": {"type": "integer"}, "description": "Queries paid for."},
            "Server-Timing": {"schema": {"type": "string"}, "description": "Milliseconds by stage."},
        }
    }
}


@router.post(
    "/{name}/predict",
    response_model=list[LabelScore] | list[list[LabelScore]],
    dependencies=[auth.needs("predict")],
    responses=_ANSWER,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "image/*": _BINARY,
                "application/octet-stream": _BINARY,
                "application/json": {"schema": {"$ref": "#/components/schemas/PredictBody"}},
                "multipart/form-data": _FILES,
            },
        }
    },
)
async def predict(name: str, request: Request, wired: Wired) -> Response:
    """One image (raw bytes, or base64 in JSON) gives one list, best label first; several give a list each. An
    endpoint of rows, series or sequences takes them as they are in JSON."""
    started = time.perf_counter()
    inputs, single, top_k = await read_inputs(request, wired, name)
    found = await wired.predictor.predict(name, inputs, auth.caller_of(request))
    lists = [ranked(found.labels, row, top_k) for row in found.scores]
    headers = cost_headers(found, time.perf_counter() - started)
    return Response(orjson.dumps(lists[0] if single else lists), 200, headers, "application/json")


def ranked(labels: tuple[str, ...], scores: NDArray[np.float64], top_k: int | None) -> list[dict[str, Any]]:
    """[{label, score}], highest first; equal scores keep the order of labels. scores (T,)."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [{"label": labels[j], "score": float(scores[j])} for j in order]


def cost_headers(found: Prediction, seconds: float) -> dict[str, str]:
    cost = amount(found.cost_micros)
    stages = {**found.seconds, "total": seconds}
    headers = {
        "X-Cost": f"{cost} {found.currency}",
        "X-Remote-Queries": str(found.queries),
        "Server-Timing": ", ".join(f"{name};dur={took * 1000:.1f}" for name, took in stages.items()),
    }
    return headers | ({"X-Cost-USD": cost} if found.currency == "USD" else {})


async def read_inputs(
    request: Request, wired: Services, name: str
) -> tuple[Sequence[object], bool, int | None]:
    """(encoded images or records, whether one list is the answer, top_k). Raises BadRequest,
    UnsupportedType."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request), False, None
    body = await request.body()
    if kind == "application/json" or kind.endswith("+json"):
        return await read_json(body, wired, name)
    if kind in _RAW or kind.startswith("image/"):
        if not body:
            raise BadRequest(
                "The body is empty.", code="empty_body", hint="Send an image: curl --data-binary @image.png"
            )
        return [body], True, None
    raise UnsupportedType(
        f"An image cannot be read from {kind}.",
        hint="Send image/*, application/octet-stream, application/json or multipart/form-data.",
    )


async def read_json(body: bytes, wired: Services, name: str) -> tuple[Sequence[object], bool, int | None]:
    """`read_inputs` of a JSON body."""
    try:
        asked = PredictBody.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error
    kind = await wired.predictor.reads(name)
    values, single = _several(asked.inputs, kind)
    if not 1 <= len(values) <= MOST_FILES:
        raise BadRequest(
            f"There are {len(values)} inputs.", param="inputs", hint=f"1 to {MOST_FILES} at once."
        )
    if kind is None:
        values = [_decode(value, "inputs" if single else f"inputs.{i}") for i, value in enumerate(values)]
    return values, single, asked.parameters.top_k


def _several(inputs: object, kind: str | None) -> tuple[list[object], bool]:
    """Inputs as a list, and whether it was one alone: a text, an object, or a list of plain cells."""
    if not isinstance(inputs, list):
        return [inputs], True
    values = cast("list[object]", inputs)
    cells = bool(values) and not any(isinstance(value, list | dict) for value in values)
    return ([values], True) if cells and kind in ("table", "series") else (values, False)


def _refusal(error: ValidationError) -> ReprogError:
    found = error.errors(include_url=False, include_input=False)
    return translate([{**item, "loc": [p for p in item["loc"] if not _tag(p)]} for item in found])


def _tag(part: int | str) -> bool:
    """pydantic names the branch of a union in a location: not for users."""
    return isinstance(part, str) and (part == "str" or part.startswith("list["))


def _decode(text: object, param: str) -> bytes:
    """Base64, standard or URL-safe, with or without padding, whitespace and a `data:...;base64,` prefix."""
    if not isinstance(text, str):
        raise BadRequest("It is no text.", param=param, hint="This endpoint takes images: send base64.")
    found = _DATA_URL.match(text)
    if text[:5].lower() == "data:" and found is None:
        raise BadRequest(
            "The data URL is not base64.", param=param, hint="Only data:<type>;base64,<data> is read."
        )
    plain = "".join((text[found.end() :] if found else text).split()).translate(str.maketrans("-_", "+/"))
    try:
        data = base64.b64decode(plain.rstrip("=") + "=" * (-len(plain.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(
            "The input is not base64.",
            code="invalid_base64",
            param=param,
            hint="Encode the image file's bytes.",
        ) from error
    if not data:
        raise BadRequest("The input is empty.", code="empty_body", param=param, hint="Encode an image file.")
    return data


async def _form(request: Request) -> list[bytes]:
    """Every file of the form, whatever the members are called, in their order."""
    async with request.form(max_files=MOST_FILES, max_fields=16) as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        images = [await file.read() for file in files]
    if not images:
        raise BadRequest(
            "The form has no file.", code="missing_field", param="file", hint="curl -F file=@image.png"
        )
    return images
