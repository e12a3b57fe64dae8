"""Azure Custom Vision, Prediction API v3: one image per request, all tags in every answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Price, ProviderInfo, Reply, ScoreKind, WireReply, WireRequest
from app.errors import (
    ConfigError,
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    Rejected,
    ReplyInvalid,
    Unavailable,
)
from app.providers import wire

_CODES: dict[str, type[ProviderError]] = {
    "BadRequestImageFormat": Rejected,
    "BadRequestImageStream": Rejected,
    "BadRequestImageSizeBytes": Rejected,
    "BadRequestImageDimensions": Rejected,
    "BadRequestImageUrl": Rejected,
    "BadRequestExceededQuota": QuotaExhausted,
    "UnsupportedMediaType": Rejected,
    "ErrorUnknown": Unavailable,
    "ErrorPrediction": Unavailable,
    "ErrorPredictionStorage": Unavailable,
    "ErrorPredictionServiceUnavailable": Unavailable,
    "ErrorPredictionModelNotCached": Unavailable,
    "ErrorPredictionModelNotFound": Unavailable,
}
_FAMILIES: tuple[tuple[str, type[ProviderError]], ...] = (
    ("BadRequest", ConfigError),
    ("NotFound", ConfigError),
    ("Forbidden", KeyRefused),
)
ENLARGES_BELOW = 256  # pixels; smaller images are taken and stretched
_REQUEST_IDS = ("apim-request-id", "x-ms-request-id", "request-id")


class Model(BaseModel):
    """Which source model: a project and the name its iteration was published under."""

    model_config = ConfigDict(extra="forbid")

    project_id: str = Field(min_length=1)
    published_name: str = Field(min_length=1)


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    api_version: str = Field("v3.1", pattern=r"^v3\.\d(-preview)?$")
    store: bool = Field(False, description="Let the service keep the images for 30 days (half the rate).")
    score_kind: ScoreKind = Field("probability", description="A multilabel project is `independent`.")
    input_size: int = Field(
        ENLARGES_BELOW, ge=8, le=4096, description="Smaller images are enlarged by the service."
    )


class CustomVision(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(2_000),
        Limits(10.0, 16, 1),
        "2026-11",
        "https://www.microsoft.com/licensing/terms",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        project, name = (quote(part, safe="") for part in (model.project_id, model.published_name))
        self._url = (
            f"{base_url.rstrip('/')}/customvision/{options.api_version}/Prediction/{project}"
            f"/classify/iterations/{name}/image{'' if options.store else '/nostore'}"
        )
        self._secret = secret
        self._headers = {"Prediction-Key": secret, "Content-Type": "application/octet-stream"}
        self.info = ProviderInfo(
            provider="custom_vision",
            cache_scope=f"custom_vision {self._url}",
            score_kind=options.score_kind,
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=4_000_000,
            enlarges_below=ENLARGES_BELOW,
        )

    def __repr__(self) -> str:
        return f"CustomVision({self._url})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """The image itself is the body."""
        [png] = pngs
        return WireRequest("POST", self._url, self._headers, png)

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        request_id = next((reply.headers[name] for name in _REQUEST_IDS if name in reply.headers), None)
        if body is None:
            raise wire.by_status(reply, request_id=request_id)
        flat = _flat(body)
        if reply.status >= 300 or "predictions" not in flat:
            raise _error(reply, flat, request_id)
        tags = [_flat(tag) for tag in wire.objects(flat["predictions"])]
        labels = wire.distinct(
            [(wire.text(t.get("tagname") or t.get("tag")), wire.text(t.get("tagid"))) for t in tags]
        )
        try:
            scores = [wire.score(tag.get("probability"), self.info.score_kind) for tag in tags]
        except ReplyInvalid as error:
            error.request_id, error.http_status = request_id, reply.status
            raise
        if not scores or "" in labels:
            raise ReplyInvalid("An answer without tags.", request_id=request_id, http_status=reply.status)
        outcome = dict(zip(labels, scores, strict=True))
        request_id = request_id or wire.text(flat.get("id")) or None
        return Reply((outcome,), wire.text(flat.get("iteration")), request_id)


def _flat(body: wire.Json) -> dict[str, Any]:
    """Members by their names in small letters: older versions capitalise them."""
    return {str(name).lower(): value for name, value in body.items()}


def _error(reply: WireReply, flat: wire.Json, request_id: str | None) -> ProviderError:
    """From {code, message}, {error: {code, message}} or {statusCode, message}, in either case of letters."""
    inner = flat.get("error")
    flat = _flat(inner) if isinstance(inner, dict) else flat
    code, message = wire.text(flat.get("code")), wire.text(flat.get("message"))
    kind = _CODES.get(code) or next((k for prefix, k in _FAMILIES if code.startswith(prefix)), None)
    if kind is None or reply.status == 429:
        return wire.by_status(reply, message, request_id=request_id)
    hint = "Check project_id and published_name." if kind is ConfigError else None
    return wire.refusal(kind, message, code, reply, request_id=request_id, hint=hint)
