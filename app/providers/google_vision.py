"""Google Cloud Vision, images:annotate: safe-search likelihoods or labels, up to 16 images per request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import orjson
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Outcome, Price, ProviderInfo, Reply, WireReply, WireRequest
from app.errors import (
    ConfigError,
    Doubtful,
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    ReplyInvalid,
    Throttled,
    Unavailable,
)  # fmt: skip
from app.providers import wire

#: Ordinal codes. UNKNOWN is no information: such a label is left out.
_LIKELIHOODS = {"VERY_UNLIKELY": 1.0, "UNLIKELY": 2.0, "POSSIBLE": 3.0, "LIKELY": 4.0, "VERY_LIKELY": 5.0}
_CATEGORIES = ("adult", "spoof", "medical", "violence", "racy")
#: gRPC codes and their names, which the HTTP plane uses.
_CODES: dict[str, type[ProviderError]] = {
    "3": Doubtful, "INVALID_ARGUMENT": ConfigError, "7": KeyRefused, "PERMISSION_DENIED": KeyRefused,
    "8": Throttled, "RESOURCE_EXHAUSTED": Throttled, "13": Unavailable, "INTERNAL": Unavailable,
    "14": Unavailable, "UNAVAILABLE": Unavailable, "16": KeyRefused, "UNAUTHENTICATED": KeyRefused,
    "4": Unavailable, "DEADLINE_EXCEEDED": Unavailable,
}  # fmt: skip


class Model(BaseModel):
    """Which scores. `safe_search`: five ordinal likelihoods. `labels`: the best `max_results`."""

    model_config = ConfigDict(extra="forbid")

    feature: Literal["safe_search", "labels"] = "safe_search"
    max_results: int = Field(default=50, ge=1, le=1000)
    model: str = Field(default="builtin/stable", description="Of the label detector.")


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    auth: Literal["api_key", "bearer"] = "api_key"
    project: str | None = Field(default=None, description="Billed with `bearer`: x-goog-user-project.")
    input_size: int = Field(default=224, ge=8, le=4096)


class GoogleVision(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(1_500),
        Limits(30.0, 8, 16),
        "2026-11",
        "https://cloud.google.com/terms/service-terms",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        self._url = f"{base_url.rstrip('/')}/v1/images:annotate"
        self._secret, self._safe = secret, model.feature == "safe_search"
        self._feature: dict[str, Any] = {"type": "SAFE_SEARCH_DETECTION"}
        if not self._safe:
            self._feature = {
                "type": "LABEL_DETECTION", "maxResults": model.max_results, "model": model.model
            }  # fmt: skip
        bearer = options.auth == "bearer"
        key = {"Authorization": f"Bearer {secret}"} if bearer else {"X-Goog-Api-Key": secret}
        project = {"X-Goog-User-Project": options.project} if options.project else {}
        self._headers = {**key, **project, "Content-Type": "application/json"}
        self.info = ProviderInfo(
            provider="google_vision",
            cache_scope=f"google_vision {self._url} {orjson.dumps(self._feature).decode()}",
            labels=_CATEGORIES if self._safe else (),
            score_kind="likelihood" if self._safe else "independent",
            input_size=options.input_size,
            max_batch=16,
            max_image_bytes=450_000,  # 16 of them, in base64, are below 10 MB
        )

    def __repr__(self) -> str:
        return f"GoogleVision({self._url} {self._feature['type']})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        asked = [{"image": {"content": b64encode(png).decode()}, "features": [self._feature]} for png in pngs]
        return WireRequest("POST", self._url, self._headers, orjson.dumps({"requests": asked}))

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Responses are in the order of requests. Raises the ProviderError of the whole request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.anything(reply)
        if isinstance(body, list) and len(body) == 1:  # how some of its front doors word an error
            body = body[0]
        body = body if isinstance(body, dict) else None
        if body is None or reply.status >= 300 or "responses" not in body:
            raise _error(reply, wire.member(body, "error"), "status")
        responses = wire.objects(body["responses"])
        if len(responses) != count:
            raise ReplyInvalid(f"{len(responses)} responses to {count} images.", http_status=reply.status)
        return Reply(tuple(self._outcome(response, reply) for response in responses))

    def _outcome(self, response: wire.Json, reply: WireReply) -> Outcome:
        if response.get("error"):
            return _error(reply, response["error"], "code")
        try:
            if self._safe:
                return _likelihoods(response.get("safeSearchAnnotation"), reply)
            rows = wire.objects(response.get("labelAnnotations"))
            return wire.listed(
                [{**row, "name": wire.text(row.get("description")) or row.get("mid")} for row in rows],
                "name", "score", "independent", reply,
            )  # fmt: skip
        except ReplyInvalid as error:
            return error


def _likelihoods(annotation: object, reply: WireReply) -> dict[str, float]:
    """Names, or the numbers 0 to 5 that `enum-encoding=int` gives. Raises ReplyInvalid."""
    if not isinstance(annotation, dict):
        raise ReplyInvalid("A response without safeSearchAnnotation.", http_status=reply.status)
    outcome = dict[str, float]()
    for name in _CATEGORIES:
        value = annotation.get(name, "UNKNOWN")  # a zero is left out of the JSON
        if value in (0, "UNKNOWN"):
            continue
        level = _LIKELIHOODS.get(value) if isinstance(value, str) else value
        if isinstance(level, bool) or not isinstance(level, int | float) or level not in range(1, 6):
            raise ReplyInvalid(f"{name} is no likelihood.", http_status=reply.status)
        outcome[name] = float(level)
    return outcome


def _error(reply: WireReply, error: object, member: str) -> ProviderError:
    """From {code, message, status}: of the HTTP plane by its `status`, of one response by its gRPC code."""
    code, message = wire.text(wire.member(error, member)), wire.text(wire.member(error, "message"))
    kind = _CODES.get(code)
    if kind is None and member == "code":
        kind = Unavailable
    if kind is Throttled and "per day" in message.lower():
        kind = QuotaExhausted
    if kind is ConfigError and "api key" in message.lower():
        kind = KeyRefused
    return wire.refusal(kind, message, code, reply)
