"""Imagga v2 categorizers: one image per request in a form, percents of the categories above a bound."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Price, ProviderInfo, Reply, WireReply, WireRequest
from app.errors import ConfigError, ProviderError, QuotaExhausted, Rejected, ReplyInvalid, Throttled
from app.providers import wire

#: Errors carry no code: status and words are all there is. What is not here goes by the status.
_REFUSALS: tuple[tuple[int, str, type[ProviderError]], ...] = (
    (400, "image", Rejected),
    (403, "limit", QuotaExhausted),
    (429, "month", QuotaExhausted),
    (429, "", Throttled),  # more requests at once than the plan allows
)


class Model(BaseModel):
    """Which source model. Answers carry no version."""

    model_config = ConfigDict(extra="forbid")

    categorizer_id: str = Field(default="nsfw_beta", min_length=1, description="Such as `personal_photos`.")


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    language: str = Field(default="en", pattern=r"^[a-z]{2}(_[a-z]+)?$", description="Of the labels.")
    input_size: int = Field(default=224, ge=8, le=4096)


class Imagga(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`. The secret is `api key:api secret`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(1_130), Limits(2.0, 1, 1), "2026-11", "https://imagga.com/terms"
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        base, asked = base_url.rstrip("/"), quote(model.categorizer_id, safe="")
        self._url = f"{base}/v2/categories/{asked}?language={options.language}"
        self._secret, self._language = secret, options.language
        self._headers = {
            "Authorization": f"Basic {b64encode(secret.encode()).decode()}",
            "Content-Type": f"multipart/form-data; boundary={wire.BOUNDARY}",
        }
        self.info = ProviderInfo(
            provider="imagga",
            cache_scope=f"imagga {self._url}",
            score_kind="percent",
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=10_000_000,
        )

    def __repr__(self) -> str:
        return f"Imagga({self._url})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        [png] = pngs
        body = wire.multipart({}, ("image", "image.png", "image/png", png))
        return WireRequest("POST", self._url, self._headers, body)

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the request."""
        reply = wire.redacted(wire.redacted(reply, self._secret), self._secret.partition(":")[2])
        body = wire.parse(reply)
        said = wire.member(body, "status")
        if not isinstance(said, Mapping):  # the older form, which some limits still speak
            said = {"type": said, "text": wire.member(body, "message")}
        status, message = (wire.text(wire.member(said, name)) for name in ("type", "text"))
        if body is None or reply.status >= 300 or status == "error":
            raise _error(reply, message, failed=status == "error")
        rows = [
            {"name": wire.member(row, "name", self._language), "value": row.get("confidence")}
            for row in wire.objects(wire.member(body, "result", "categories"))
        ]
        outcome = wire.listed(rows, "name", "value", "percent", reply)
        if not outcome:
            raise ReplyInvalid("An answer without categories.", http_status=reply.status)
        return Reply((outcome,))


def _error(reply: WireReply, message: str, *, failed: bool) -> ProviderError:
    """From words and HTTP status; an error inside a success stops the run."""
    for status, word, kind in _REFUSALS:
        if reply.status == status and word in message.lower():
            return wire.refusal(kind, message, "", reply)
    return wire.refusal(ConfigError if failed and reply.status < 300 else None, message, "", reply)
