"""Open Inference Protocol v2: an endpoint is a model that takes images and gives `scores` and `labels`."""

from __future__ import annotations

import asyncio
import io
import math
import struct
import time
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, ValidationError

from app import __version__
from app.api import auth
from app.api.compat import door
from app.api.deps import Prediction, Wired
from app.api.predict import cost_headers
from app.api.problems import translate
from app.errors import BadRequest, ReprogError

_LENGTH = "Inference-Header-Content-Length"
_SIDE = 4096


class Tensor(BaseModel):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, max_length=5)]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] = {}


class Wanted(BaseModel):
    name: str
    parameters: dict[str, Any] = {}


class Asked(BaseModel):
    id: str = ""
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: list[Wanted] = []
    parameters: dict[str, Any] = {}


def _word(_: Request, error: ReprogError) -> Response:
    """{error: text}."""
    status = 400 if error.status in (409, 413, 415, 422) else error.status
    return _json({"error": door.said(error)}, status, door.waiting(error))


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


router = APIRouter(
    prefix="/v2",
    tags=["compatible formats"],
    route_class=door.speaking(_word),
    responses=door.answers(400, 401, 402, 403, 404, 413, 429, 500, 502, 503),
)
_BODY = door.body(json=door.JSON, octet=door.BINARY)


@router.get("")
async def server() -> Response:
    """Name, version and protocol extensions of this server."""
    extensions = ["binary_tensor_data", "classification"]
    return _json({"name": "reprog", "version": __version__, "extensions": extensions})


@router.get("/health/live")
async def live() -> Response:
    return _json({"live": True})


@router.get("/health/ready")
async def ready() -> Response:
    return _json({"ready": True})


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}", name="model_version")
async def model(name: str, request: Request, wired: Wired) -> Response:
    """The endpoint's tensors. Key: `Authorization: Bearer`."""
    await door.admit(request, wired, door.authorization(request, "bearer"))
    found = await asyncio.to_thread(wired.endpoints.live, name)
    return _json(
        {
            "name": name,
            "versions": [str(found.version)],
            "platform": "reprog",
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
                {"name": "labels", "datatype": "BYTES", "shape": [-1]},
            ],
        }
    )


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready", name="model_version_ready")
async def model_ready(name: str, request: Request, wired: Wired) -> Response:
    """Whether the endpoint answers. Key: `Authorization: Bearer`."""
    await door.admit(request, wired, door.authorization(request, "bearer"))
    await asyncio.to_thread(wired.endpoints.live, name)
    return _json({"name": name, "ready": True})


@router.post("/models/{name}/infer", openapi_extra=_BODY)
@router.post("/models/{name}/versions/{version}/infer", openapi_extra=_BODY, name="infer_version")
async def infer(name: str, request: Request, wired: Wired) -> Response:
    """Images as BYTES (encoded files: base64 in JSON, or raw by the binary extension) or UINT8 pixels
    (N, H, W, 3) or (N, 3, H, W). `scores` FP32 (N, T) has its columns in the order of `labels` BYTES (T);
    `classification` k gives the best k as `score:index:label`. Key: `Authorization: Bearer`."""
    await door.admit(request, wired, door.authorization(request, "bearer"))
    started = time.perf_counter()
    asked, raw = _read(await request.body(), request.headers.get(_LENGTH))
    files = await asyncio.to_thread(_files, asked.inputs[0], raw)
    version = (await asyncio.to_thread(wired.endpoints.live, name)).version
    found = await wired.predictor.predict(name, files, auth.caller_of(request))
    headers = cost_headers(found, time.perf_counter() - started)
    return _answer(asked, name, version, found, headers)


def _read(body: bytes, length: str | None) -> tuple[Asked, bytes]:
    """(the JSON part, what follows it)."""
    if length is not None and not (length.isdecimal() and int(length) <= len(body)):
        raise BadRequest(f"{_LENGTH} is no length within the body.")
    cut = len(body) if length is None else int(length)
    try:
        return Asked.model_validate_json(body[:cut]), body[cut:]
    except ValidationError as error:
        raise translate(error.errors(include_url=False, include_input=False)) from error


def _files(tensor: Tensor, raw: bytes) -> list[bytes]:
    """The tensor's images as encoded files. Raises BadRequest."""
    size = tensor.parameters.get("binary_data_size")
    if tensor.data is None and (not isinstance(size, int) or size != len(raw)):
        raise BadRequest(f"Input {tensor.name!r} has neither data nor its binary_data_size of bytes.")
    if tensor.datatype == "BYTES":
        files = _texts(tensor) if tensor.data is not None else _elements(raw)
        if len(files) != math.prod(tensor.shape):
            raise BadRequest(f"{len(files)} elements do not make the shape {tensor.shape}.")
    elif tensor.datatype == "UINT8":
        files = [_png(image) for image in _pixels(tensor, raw)]
    else:
        raise BadRequest(f"An input of {tensor.datatype} is not read.", hint="Send BYTES or UINT8.")
    if not 1 <= len(files) <= door.MOST_IMAGES:
        raise BadRequest(f"{len(files)} images: 1 to {door.MOST_IMAGES} are answered at once.")
    return files


def _texts(tensor: Tensor) -> list[bytes]:
    """BYTES in JSON are text: base64 by agreement."""
    values = _flat(tensor.data)
    if not all(isinstance(value, str) for value in values):
        raise BadRequest(f"The BYTES of {tensor.name!r} are base64 texts.")
    return [door.from_base64(value, f"{tensor.name}[{n}]") for n, value in enumerate(values)]


def _elements(raw: bytes) -> list[bytes]:
    """uint32 length, then that many bytes, again and again."""
    found, place = list[bytes](), 0
    while place + 4 <= len(raw):
        (size,) = struct.unpack_from("<I", raw, place)
        found.append(raw[place + 4 : place + 4 + size])
        place += 4 + size
    if place != len(raw):
        raise BadRequest("The binary BYTES tensor is cut short.")
    return found


def _pixels(tensor: Tensor, raw: bytes) -> NDArray[np.uint8]:
    """(N, H, W, 3)."""
    shape = tensor.shape if len(tensor.shape) == 4 else [1, *tensor.shape]
    if len(shape) != 4 or 3 not in (shape[3], shape[1]) or max(shape[1:]) > _SIDE or 0 in shape:
        raise BadRequest(f"Pixels have the shape (N, H, W, 3) or (N, 3, H, W), not {tuple(tensor.shape)}.")
    if tensor.data is not None:
        values = _flat(tensor.data)
        if not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
            raise BadRequest("UINT8 values are whole numbers from 0 to 255.")
        raw = bytes(values)
    if len(raw) != math.prod(shape):
        raise BadRequest(f"{len(raw)} values do not make the shape {tuple(tensor.shape)}.")
    pixels = np.frombuffer(raw, np.uint8).reshape(shape)
    return pixels if shape[3] == 3 else pixels.transpose(0, 2, 3, 1)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _flat(value: object, depth: int = 0) -> list[Any]:
    """A tensor's elements: `data` may be flat or nested."""
    if not isinstance(value, list) or depth > 5:
        raise BadRequest("A tensor's data are a list.")
    return [x for item in value for x in (_flat(item, depth + 1) if isinstance(item, list) else [item])]


def _answer(asked: Asked, name: str, version: int, found: Prediction, headers: dict[str, str]) -> Response:
    """JSON, or JSON and raw tensors where those were asked for."""
    binary_all = asked.parameters.get("binary_data_output") is True
    outputs, tail = list[dict[str, Any]](), list[bytes]()
    for wanted in asked.outputs or [Wanted(name="scores"), Wanted(name="labels")]:
        values, shape, datatype = _tensor(wanted, found)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.parameters.get("binary_data", binary_all):
            raw = _bytes(values)
            output["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            output["data"] = values if isinstance(values, list) else values.ravel().tolist()
        outputs.append(output)
    content = {"model_name": name, "model_version": str(version), "outputs": outputs}
    head = orjson.dumps(content | ({"id": asked.id} if asked.id else {}))
    if not tail:
        return Response(head, 200, headers, "application/json")
    sized = headers | {_LENGTH: str(len(head))}
    return Response(b"".join([head, *tail]), 200, sized, "application/octet-stream")


def _tensor(wanted: Wanted, found: Prediction) -> tuple[NDArray[np.float32] | list[str], list[int], str]:
    """(values, shape, datatype) of one output."""
    rows, columns = found.scores.shape
    best = wanted.parameters.get("classification")
    if wanted.name == "labels":
        return list(found.labels), [columns], "BYTES"
    if wanted.name != "scores":
        raise BadRequest(f"There is no output {wanted.name!r}.", hint="There are `scores` and `labels`.")
    if best is None:
        return found.scores.astype("<f4"), [rows, columns], "FP32"
    if not isinstance(best, int) or best < 1:
        raise BadRequest("`classification` is a whole number from 1.")
    order = np.argsort(-found.scores, axis=1, kind="stable")[:, :best]
    texts = [f"{found.scores[n, j]:.6f}:{j}:{found.labels[j]}" for n in range(rows) for j in order[n]]
    return texts, [rows, order.shape[1]], "BYTES"


def _bytes(values: NDArray[np.float32] | list[str]) -> bytes:
    if isinstance(values, list):
        encoded = [text.encode() for text in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return values.tobytes()
