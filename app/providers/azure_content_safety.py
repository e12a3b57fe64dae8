"""Azure AI Content Safety, image:analyze: ordinal severities, one image per request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal

import orjson
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Price, ProviderInfo, Reply, WireReply, WireRequest
from app.errors import ProviderError, Rejected, ReplyInvalid, Throttled, Unavailable
from app.providers import wire

Category = Literal["Hate", "SelfHarm", "Sexual", "Violence"]
_CODES: dict[str, type[ProviderError]] = {
    "TooManyRequests": Throttled,
    "InternalError": Unavailable,
    "ServerBusy": Unavailable,
    "InvalidImageFormat": Rejected,
    "InvalidImageSize": Rejected,
    "NotSupportedImage": Rejected,
}
_PICTURE = re.compile(r"image (?:size|format|dimension|is |content)|decode", re.I)


class Model(BaseModel):
    """Which scores: the service has one model."""

    model_config = ConfigDict(extra="forbid")

    categories: tuple[Category, ...] = Field(default=("Hate", "SelfHarm", "Sexual", "Violence"), min_length=1)


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    api_version: str = Field(default="2023-10-01", pattern=r"^\d{4}-\d\d-\d\d(-preview)?$")
    input_size: int = Field(default=224, ge=50, le=7200)


class AzureContentSafety(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(750),
        Limits(50.0, 16, 1),
        "2026-11",
        "https://www.microsoft.com/licensing/terms",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        base = base_url.rstrip("/")
        self._url = f"{base}/contentsafety/image:analyze?api-version={options.api_version}"
        self._secret, self._categories = secret, list(model.categories)
        self._version = options.api_version
        self._headers = {"Ocp-Apim-Subscription-Key": secret, "Content-Type": "application/json"}
        self.info = ProviderInfo(
            provider="azure_content_safety",
            cache_scope=f"azure_content_safety {self._url} {' '.join(model.categories)}",
            labels=tuple(model.categories),
            score_kind="severity",
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=4_000_000,
            min_side=50,
        )

    def __repr__(self) -> str:
        return f"AzureContentSafety({self._url})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        [png] = pngs
        body = {
            "image": {"content": b64encode(png).decode()},
            "categories": self._categories,
            "outputType": "FourSeverityLevels",
        }
        return WireRequest("POST", self._url, self._headers, orjson.dumps(body))

    def reply(self, reply: WireReply, count: int) -> Reply:
        """The version is the interface's: answers tell no other. Raises the ProviderError of the request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        request_id = reply.headers.get("apim-request-id") or reply.headers.get("x-ms-request-id")
        if body is None or reply.status >= 300:
            raise _error(reply, body, request_id)
        rows = wire.objects(body.get("categoriesAnalysis"))
        outcome = wire.listed(rows, "category", "severity", "severity", reply)
        if not outcome or not all(0 <= level <= 7 for level in outcome.values()):
            raise ReplyInvalid(
                "An answer without severities.", request_id=request_id, http_status=reply.status
            )
        return Reply((outcome,), self._version, request_id)


def _error(reply: WireReply, body: wire.Json | None, request_id: str | None) -> ProviderError:
    """From {error: {code, message}}, {statusCode, message} of the gateway in front, or a header."""
    code = wire.text(wire.member(body, "error", "code")) or reply.headers.get("x-ms-error-code", "")
    message = wire.text(wire.member(body, "error", "message")) or wire.text(wire.member(body, "message"))
    kind = _CODES.get(code)
    if kind is None and reply.status == 400 and _PICTURE.search(message):
        kind = Rejected
    return wire.refusal(kind, message, code, reply, request_id=request_id)
