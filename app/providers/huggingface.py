"""Hugging Face image classification: the inference service, dedicated endpoints, and what speaks alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import orjson
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Price, ProviderInfo, Reply, ScoreKind, WireReply, WireRequest
from app.errors import ProviderError, QuotaExhausted, Rejected, ReplyInvalid, Throttled
from app.providers import wire

_PICTURE = re.compile(r"cannot identify image|invalid image|image file|decod", re.I)
_LONGEST_LOADING = 60.0  # seconds; models say 20 to several hundred, and are asked again


class Model(BaseModel):
    """Which source model. Without `model` the base_url is that of a dedicated endpoint."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str | None = Field(default=None, min_length=1, description="`owner/name`, asked below /models/.")
    revision: str = Field(default="", description="Stands for the version: answers do not tell one.")


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(
        default=1000, ge=1, description="null: the service's own, 5; the rest is censored."
    )
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    score_kind: ScoreKind | None = Field(default=None, description="Empty: what function_to_apply gives.")
    input_size: int = Field(default=224, ge=8, le=4096)


_KINDS: dict[str | None, ScoreKind] = {"sigmoid": "independent", "none": "logit"}


class HuggingFace(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(100),
        Limits(5.0, 8, 1),
        "2026-11",
        "https://huggingface.co/terms-of-service",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        base = base_url.rstrip("/")
        self._url = f"{base}/models/{quote(model.model)}" if model.model else base
        self._secret, self._revision = secret, model.revision
        asked = {"top_k": options.top_k, "function_to_apply": options.function_to_apply}
        self._parameters = {name: value for name, value in asked.items() if value is not None}
        kind = "application/json" if self._parameters else "image/png"
        self._headers = {"Content-Type": kind, "Accept": "application/json"}
        if secret:
            self._headers["Authorization"] = f"Bearer {secret}"
        self.info = ProviderInfo(
            provider="huggingface",
            cache_scope=f"huggingface {self._url} {orjson.dumps(self._parameters).decode()}",
            score_kind=options.score_kind or _KINDS.get(options.function_to_apply, "probability"),
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=10_000_000,
        )

    def __repr__(self) -> str:
        return f"HuggingFace({self._url})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """The image itself, or base64 beside the parameters."""
        [png] = pngs
        if not self._parameters:
            return WireRequest("POST", self._url, self._headers, png)
        body: dict[str, Any] = {"inputs": b64encode(png).decode(), "parameters": self._parameters}
        return WireRequest("POST", self._url, self._headers, orjson.dumps(body))

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.anything(reply)
        request_id = reply.headers.get("x-request-id")
        if reply.status >= 300 or not isinstance(body, list):
            raise _error(reply, body, request_id)
        rows = body[0] if len(body) == 1 and isinstance(body[0], list) else body
        outcome = wire.listed(wire.objects(rows), "label", "score", self.info.score_kind, reply)
        if not outcome or len(outcome) < len(rows):
            raise ReplyInvalid("An answer without labels.", request_id=request_id, http_status=reply.status)
        return Reply((outcome,), self._revision, request_id)


def _error(reply: WireReply, body: object, request_id: str | None) -> ProviderError:
    """From {error: text or [text], estimated_time}."""
    said = wire.member(body, "error")
    message = wire.text(said[0] if isinstance(said, list) and said else said)
    loading = wire.member(body, "estimated_time")
    kind: type[ProviderError] | None = None
    wait: float | None = None
    if reply.status == 503 and (isinstance(loading, int | float) or "loading" in message):
        kind = Throttled  # nothing was processed
        wait = min(_LONGEST_LOADING, float(loading)) if isinstance(loading, int | float) else None
    elif reply.status == 402:
        kind = QuotaExhausted
    elif reply.status in (400, 422) and _PICTURE.search(message):
        kind = Rejected
    return wire.refusal(kind, message, "", reply, request_id=request_id, wait=wait)
