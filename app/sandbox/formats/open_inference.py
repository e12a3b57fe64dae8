"""Open Inference Protocol v2 under /oip (Clarifai owns /v2/models): images in, one output `probs`."""

import math
import struct
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import labels_of
from app.sandbox.desk import Model, Visit
from app.sandbox.formats.base import Fetch, Format, WrongError, bearer, document, from_base64, inside
from app.sandbox.images import Images, encoded
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome, ranked

_LENGTH = "Inference-Header-Content-Length"


class OpenInference(Format):
    line = "open_inference"
    price_micros = 0

    def routes(self) -> list[Route]:
        return [
            Route("/oip/v2", self._fine),
            Route("/oip/v2/health/live", self._fine),
            Route("/oip/v2/health/ready", self._fine),
            Route("/oip/v2/models/{name}", self._describe),
            Route("/oip/v2/models/{name}/ready", self._describe),
            Route("/oip/v2/models/{name}/infer", self._infer, methods=["POST"]),
            Route("/oip/v2/models/{name}/versions/{version}/infer", self._infer, methods=["POST"]),
        ]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        return json_reply({"error": message}, status, headers)

    async def _fine(self, _: Request) -> Response:
        return json_reply(
            {"name": "sandbox", "version": "1", "extensions": ["binary_tensor_data", "classification"]}
        )

    async def _describe(self, request: Request) -> Response:
        model = self.model(request.path_params["name"])
        if model is None:
            return self.error(404, "", f"Request for unknown model: {request.path_params['name']!r}")
        width = len(labels_of(model.classifier))
        inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        outputs = [{"name": "probs", "datatype": "FP32", "shape": [-1, width]}]
        return json_reply(
            {"name": model.id, "versions": ["1"], "platform": "onnx", "inputs": inputs, "outputs": outputs}
        )

    async def _infer(self, request: Request) -> Response:
        model = self.model(request.path_params["name"])
        length = request.headers.get(_LENGTH)
        asked: dict[str, Any] = {}

        def read(visit: Visit) -> list[Fetch]:
            cut = int(length) if length and length.isdecimal() else len(visit.body)
            asked.update(document(visit.body[:cut]))
            return _images(asked, visit.body[cut:])

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    return self.failed(outcome, "")
            scores = np.stack([outcome.values for outcome in outcomes if not isinstance(outcome, Failed)])
            return _answer(asked, visit, scores, generation, visit.model)

        # The protocol has no key of its own: without one, all callers are one account.
        return await self.run(request, bearer(request) or "sandbox-anonymous", model, read, answer)


def _images(asked: dict[str, Any], raw: bytes) -> list[Fetch]:
    tensor = inside(asked, "inputs", 0)
    shape = inside(tensor, "shape")
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        raise WrongError("", "an input tensor with a shape is needed")
    data, datatype = inside(tensor, "data"), inside(tensor, "datatype")
    if datatype == "BYTES":
        fetches = [from_base64(text) for text in _flat(data)] if data is not None else _elements(raw)
        if len(fetches) != math.prod(shape):
            raise WrongError("", f"unexpected shape for input: {len(fetches)} elements")
        return fetches
    if datatype != "UINT8" or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise WrongError("", "inputs are BYTES, or UINT8 of (N, H, W, 3) or (N, 3, H, W)")
    values = bytes(_flat(data)) if data is not None else raw
    if len(values) != math.prod(shape):
        raise WrongError("", "unexpected total byte size for input")
    pixels = np.frombuffer(values, np.uint8).reshape(shape)
    pixels = pixels if shape[3] == 3 else pixels.transpose(0, 2, 3, 1)
    return [_encoder(image) for image in pixels]


def _encoder(image: Images) -> Fetch:
    return lambda: encoded(image)


def _elements(raw: bytes) -> list[Fetch]:
    """uint32 length, then that many bytes, again and again."""
    found, place = list[Fetch](), 0
    while place + 4 <= len(raw):
        (size,) = struct.unpack_from("<I", raw, place)
        piece = raw[place + 4 : place + 4 + size]
        found.append(lambda piece=piece: piece)
        place += 4 + size
    return found


def _flat(value: object) -> list[Any]:
    return [x for item in value for x in _flat(item)] if isinstance(value, list) else [value]


def _answer(asked: dict[str, Any], visit: Visit, scores: Any, generation: int, model: Model) -> Response:  # noqa: ANN401
    wanted = inside(asked, "outputs", 0, "parameters") or {}
    labels, count = labels_of(model.classifier), len(scores)
    best = wanted.get("classification")
    if best:
        rows = [ranked(row, visit.luck.faults)[: int(best)] for row in scores]
        texts = [f"{scores[n][j]:.6f}:{j}:{labels[j]}" for n, row in enumerate(rows) for j in row]
        output: dict[str, Any] = {"name": "probs", "datatype": "BYTES", "shape": [count, len(texts) // count]}
        raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
        values: list[Any] = list(texts)
    else:
        output = {"name": "probs", "datatype": "FP32", "shape": [count, len(labels)]}
        raw = scores.astype("<f4").tobytes()
        values = scores.ravel().tolist()
    binary = wanted.get("binary_data", inside(asked, "parameters", "binary_data_output") is True)
    output |= {"parameters": {"binary_data_size": len(raw)}} if binary else {"data": values}
    content = {"model_name": model.id, "model_version": str(generation + 1), "outputs": [output]}
    if asked.get("id"):
        content["id"] = asked["id"]
    if not binary:
        return json_reply(content)
    head = orjson.dumps(content)
    return Response(head + raw, 200, {_LENGTH: str(len(head))}, "application/octet-stream")
