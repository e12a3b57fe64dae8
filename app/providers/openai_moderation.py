"""OpenAI's moderation of images: one per request, independent scores of the categories that judge images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import orjson
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Price, ProviderInfo, Reply, WireReply, WireRequest
from app.errors import (
    ConfigError,
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    Rejected,
    ReplyInvalid,
    Throttled,
)
from app.providers import wire

#: All others answer a constant for an image.
_OF_IMAGES = (
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "violence",
    "violence/graphic",
)
_CODES: dict[str, type[ProviderError]] = {
    "insufficient_quota": QuotaExhausted,
    "billing_hard_limit_reached": QuotaExhausted,
    "rate_limit_exceeded": Throttled,
    "invalid_api_key": KeyRefused,
    "image_parse_error": Rejected,
    "invalid_image": Rejected,
    "invalid_image_format": Rejected,
    "invalid_base64_image": Rejected,
    "image_too_large": Rejected,
    "image_too_small": Rejected,
    "too_many_images": ConfigError,
}


class Model(BaseModel):
    """Which source model. A dated snapshot does not change; `omni-moderation-latest` does."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="omni-moderation-2024-09-26", min_length=1)


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    input_size: int = Field(default=224, ge=8, le=4096)


class OpenAIModeration(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(0),
        Limits(4.0, 4, 1),
        "2026-11",
        "https://openai.com/policies/",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        base = base_url.rstrip("/")
        self._url = f"{base if base.endswith('/v1') else base + '/v1'}/moderations"
        self._secret, self._model = secret, model.model
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        self.info = ProviderInfo(
            provider="openai_moderation",
            cache_scope=f"openai_moderation {self._url} {model.model}",
            score_kind="independent",
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=20_000_000,
        )

    def __repr__(self) -> str:
        return f"OpenAIModeration({self._url})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """The image as a data URL; a second one would be refused."""
        [png] = pngs
        url = f"data:image/png;base64,{b64encode(png).decode()}"
        body = {"model": self._model, "input": [{"type": "image_url", "image_url": {"url": url}}]}
        return WireRequest("POST", self._url, self._headers, orjson.dumps(body))

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        request_id = reply.headers.get("x-request-id") or wire.text(wire.member(body, "id")) or None
        if body is None or reply.status >= 300:
            raise _error(reply, body, request_id)
        results = wire.objects(body.get("results"))
        scores = wire.member(results[0], "category_scores") if len(results) == 1 else None
        if not isinstance(scores, dict):
            raise ReplyInvalid("An answer without scores.", request_id=request_id, http_status=reply.status)
        judged = wire.member(results[0], "category_applied_input_types")
        kept = [name for name in scores if _judges_images(name, judged)]
        rows = [{"name": name, "value": scores[name]} for name in kept]
        outcome = wire.listed(rows, "name", "value", "independent", reply)
        if not outcome:
            raise ReplyInvalid("No category of images.", request_id=request_id, http_status=reply.status)
        return Reply((outcome,), wire.text(body.get("model")), request_id)


def _judges_images(name: str, judged: object) -> bool:
    """By what the answer says of the category, else by the list of today."""
    kinds = wire.member(judged, name)
    return "image" in kinds if isinstance(kinds, list) else name in _OF_IMAGES


def _error(reply: WireReply, body: wire.Json | None, request_id: str | None) -> ProviderError:
    """From {error: {message, type, param, code}}; 429 is a rate, or a quota that ran out."""
    code = wire.text(wire.member(body, "error", "code")) or wire.text(wire.member(body, "error", "type"))
    return wire.refusal(
        _CODES.get(code), wire.text(wire.member(body, "error", "message")), code, reply, request_id=request_id
    )
