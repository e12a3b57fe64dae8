"""Open Inference Protocol v2: KServe, Triton, OVMS, MLServer. Labels come from the settings, or from Triton's
classification extension."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Outcome, Price, ProviderInfo, Reply, ScoreKind, WireReply, WireRequest
from app.errors import BadRequest, ReplyInvalid
from app.providers import wire


class Model(BaseModel):
    """Which source model, its tensors and, in the order of its scores, its labels."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model_name: str = Field(min_length=1)
    model_version: str | None = None
    input_name: str = "image"
    output_name: str | None = Field(default=None, description="Empty: the first output.")
    labels: tuple[str, ...] = Field(default=(), description="Empty: labels are the numbers 0, 1, ...")


class Options(BaseModel):
    """How to ask. `base64`: BYTES as text in JSON; `binary`: BYTES by the binary extension; `uint8`: pixels,
    by the binary extension, in `layout`."""

    model_config = ConfigDict(extra="forbid")

    encoding: Literal["base64", "binary", "uint8"] = "base64"
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    classification: int | None = Field(
        default=None, ge=1, description="Ask Triton for the best k with names."
    )
    score_kind: ScoreKind = "probability"
    input_size: int = Field(default=224, ge=8, le=4096)
    max_batch: int = Field(default=8, ge=1, le=1024)


class OpenInference(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(Price(0), Limits(50.0, 8, 8), "2026-11")

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        if options.classification is not None and model.output_name is None:
            raise BadRequest("`classification` is asked of a named output.", param="model.output_name")
        self._url = f"{base_url.rstrip('/')}/v2/models/{quote(model.model_name, safe='')}"
        if model.model_version:
            self._url += f"/versions/{quote(model.model_version, safe='')}"
        self._secret, self._model, self._options = secret, model, options
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        settings = f"{model.input_name} {model.output_name} {options.model_dump_json()}"
        self.info = ProviderInfo(
            provider="open_inference",
            cache_scope=f"open_inference {self._url} {settings}",
            labels=model.labels,
            score_kind=options.score_kind,
            input_size=options.input_size,
            max_batch=options.max_batch,
            max_image_bytes=20_000_000,
        )

    def __repr__(self) -> str:
        return f"OpenInference({self._url})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """One input tensor with all images."""
        name, encoding = self._model.input_name, self._options.encoding
        tensor: dict[str, Any] = {"name": name, "shape": [len(pngs)], "datatype": "BYTES"}
        raw = b""
        if encoding == "base64":
            tensor["data"] = [b64encode(png).decode() for png in pngs]
        elif encoding == "binary":
            raw = b"".join(struct.pack("<I", len(png)) + png for png in pngs)
        else:
            pixels = _pixels(pngs, self._options.layout)
            tensor |= {"shape": list(pixels.shape), "datatype": "UINT8"}
            raw = pixels.tobytes()
        body: dict[str, Any] = {"inputs": [tensor]}
        parameters: dict[str, Any] = {"binary_data": False}
        if self._options.classification is not None:
            parameters["classification"] = self._options.classification
        if self._model.output_name is not None:
            body["outputs"] = [{"name": self._model.output_name, "parameters": parameters}]
        if encoding == "base64":
            headers = {**self._headers, "Content-Type": "application/json"}
            return WireRequest("POST", f"{self._url}/infer", headers, orjson.dumps(body))
        tensor["parameters"] = {"binary_data_size": len(raw)}
        head = orjson.dumps(body)
        headers = {
            **self._headers,
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
        return WireRequest("POST", f"{self._url}/infer", headers, head + raw)

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        request_id = wire.text(wire.member(body, "id")) or None
        if body is None or reply.status >= 300:
            message = wire.text(wire.member(body, "error"))
            raise wire.refusal(None, message, "", reply, request_id=request_id)
        wanted = self._model.output_name
        outputs = wire.objects(body.get("outputs"))
        output = next((o for o in outputs if wanted is None or o.get("name") == wanted), None)
        data = _flat(wire.member(output, "data"))
        if not data or len(data) % count:
            raise ReplyInvalid("No output tensor as the settings say.", http_status=reply.status)
        width = len(data) // count
        rows = [data[n * width : (n + 1) * width] for n in range(count)]
        outcomes = tuple(self._outcome(row, reply) for row in rows)
        if count == 1 and isinstance(outcomes[0], ReplyInvalid):
            raise outcomes[0]
        return Reply(outcomes, wire.text(body.get("model_version")), request_id)

    def _outcome(self, row: list[Any], reply: WireReply) -> Outcome:
        labels = self._model.labels
        if row and all(isinstance(value, str) and ":" in value for value in row):
            pairs = [_classified(value) for value in row]
        elif labels and len(labels) != len(row):
            return ReplyInvalid(f"{len(row)} scores for {len(labels)} labels.", http_status=reply.status)
        else:
            pairs = [(labels[n] if labels else str(n), value) for n, value in enumerate(row)]
        try:
            rows = [{"name": name, "value": value} for name, value in pairs]
            return wire.listed(rows, "name", "value", self.info.score_kind, reply)
        except ReplyInvalid as error:
            return error


def _classified(value: str) -> tuple[str, str]:
    """`score:index[:label]` of the classification extension."""
    score, _, rest = value.partition(":")
    index, _, label = rest.partition(":")
    return label or index, score


def _flat(value: object, depth: int = 0) -> list[Any]:
    """A tensor's elements: `data` may be flat or nested."""
    if not isinstance(value, list) or depth > 4:
        return []
    return [x for item in value for x in (_flat(item, depth + 1) if isinstance(item, list) else [item])]


def _pixels(pngs: Sequence[bytes], layout: str) -> NDArray[np.uint8]:
    """(N, H, W, 3) or (N, 3, H, W)."""
    rows = list[NDArray[np.uint8]]()
    for png in pngs:
        with Image.open(io.BytesIO(png)) as image:
            rows.append(np.asarray(image.convert("RGB")))
    pixels = np.stack(rows)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if layout == "NCHW" else pixels
