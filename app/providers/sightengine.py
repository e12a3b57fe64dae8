"""Sightengine check.json: a form with the image and the credentials, scores nested by model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

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
    Unavailable,
)  # fmt: skip
from app.providers import wire

_TYPES: dict[str, type[ProviderError]] = {
    "media_error": Rejected,
    "usage_limit": QuotaExhausted,
    "rate_limit": Throttled,
    "api_error": Unavailable,
    "argument_error": ConfigError,
}
_NO_SCORES = ("status", "request", "media", "error")


class Model(BaseModel):
    """Which source models, and whose account. A model's name holds its version."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    models: str = Field(default="nudity-2.1", pattern=r"^[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*$")
    api_user: str = Field(min_length=1, pattern=r"^[!-~]+$")


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    input_size: int = Field(default=224, ge=8, le=4096)


class Sightengine(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`. The secret is the api_secret."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(2_900),
        Limits(5.0, 4, 1),
        "2026-11",
        "https://sightengine.com/policies/terms",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        self._url = f"{base_url.rstrip('/')}/1.0/check.json"
        self._secret, self._models = secret, model.models
        self._fields = {"models": model.models, "api_user": model.api_user, "api_secret": secret}
        self._headers = {"Content-Type": f"multipart/form-data; boundary={wire.BOUNDARY}"}
        self.info = ProviderInfo(
            provider="sightengine",
            cache_scope=f"sightengine {self._url} {model.models}",
            score_kind="independent",
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=12_000_000,
        )

    def __repr__(self) -> str:
        return f"Sightengine({self._url} {self._models})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """Credentials are fields of the form: never in the address, which is logged."""
        [png] = pngs
        body = wire.multipart(self._fields, ("media", "image.png", "image/png", png))
        return WireRequest("POST", self._url, self._headers, body)

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Labels are `nudity.sexual_activity`, `gore.prob`. Raises the ProviderError of the request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        request_id = wire.text(wire.member(body, "request", "id")) or None
        if body is None or reply.status >= 300 or body.get("status") != "success":
            raise _error(reply, body, request_id)
        found = [
            row for name, value in body.items() if name not in _NO_SCORES for row in _leaves(name, value)
        ]
        outcome = wire.listed(found, "name", "value", "independent", reply)
        if not outcome:
            raise ReplyInvalid("An answer without scores.", request_id=request_id, http_status=reply.status)
        free = wire.member(body, "request", "operations") == 0
        return Reply((outcome,), self._models, request_id, 0 if free else None)


def _leaves(name: str, value: object, depth: int = 0) -> Iterator[wire.Json]:
    """Every number below `value`, under its path."""
    if isinstance(value, dict) and depth < 4:
        for inner, below in value.items():
            yield from _leaves(f"{name}.{inner}", below, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield {"name": name, "value": value}


def _error(reply: WireReply, body: wire.Json | None, request_id: str | None) -> ProviderError:
    """From {status: failure, error: {type, code, message}}; a wrong key is an argument error like others."""
    what = wire.text(wire.member(body, "error", "type"))
    message = wire.text(wire.member(body, "error", "message"))
    kind = _TYPES.get(what)
    if kind is ConfigError and "secret" in message.lower():
        kind = KeyRefused
    return wire.refusal(kind, message, what, reply, request_id=request_id)
