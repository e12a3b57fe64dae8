"""AWS Rekognition: moderation, labels or custom labels in percent, one image per signed request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import orjson
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.contracts import Limits, Price, ProviderInfo, Reply, WireReply, WireRequest
from app.errors import (
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    Rejected,
    ReplyInvalid,
    Throttled,
    Unavailable,
)  # fmt: skip
from app.providers import sigv4, wire

#: operation -> (the service's name, member with the labels, member with the version)
_OPERATIONS = {
    "moderation": ("DetectModerationLabels", "ModerationLabels", "ModerationModelVersion"),
    "labels": ("DetectLabels", "Labels", "LabelModelVersion"),
    "custom_labels": ("DetectCustomLabels", "CustomLabels", ""),
}
_CODES: dict[str, type[ProviderError]] = {
    "ThrottlingException": Throttled,  # HTTP 400, both
    "ProvisionedThroughputExceededException": Throttled,
    "ResourceNotReadyException": Throttled,  # the model is not started: nothing was processed
    "LimitExceededException": QuotaExhausted,
    "InvalidImageFormatException": Rejected,
    "ImageTooLargeException": Rejected,
    "InternalServerError": Unavailable,
    "ServiceUnavailableException": Unavailable,
    "AccessDeniedException": KeyRefused,
    "UnrecognizedClientException": KeyRefused,
    "InvalidSignatureException": KeyRefused,
    "SignatureDoesNotMatch": KeyRefused,
    "IncompleteSignatureException": KeyRefused,
    "MissingAuthenticationTokenException": KeyRefused,
    "ExpiredTokenException": KeyRefused,
    "RequestExpired": KeyRefused,
}
_NOT_READY_SECONDS = 30.0


class Model(BaseModel):
    """Which source model. Custom labels need the ARN of a running version."""

    model_config = ConfigDict(extra="forbid")

    operation: Literal["moderation", "labels", "custom_labels"] = "moderation"
    project_version_arn: str | None = None
    region: str = Field(default="us-east-1", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")

    @model_validator(mode="after")
    def _which(self) -> Model:
        if (self.operation == "custom_labels") != (self.project_version_arn is not None):
            raise ValueError("project_version_arn goes with operation custom_labels, and only there")
        return self


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    min_confidence: float = Field(
        default=0.0, ge=0, le=100, description="Labels below are left out: censored."
    )
    max_results: int = Field(default=1000, ge=1, le=4096, description="Of labels and custom labels.")
    input_size: int = Field(default=224, ge=80, le=4096)


class Rekognition(wire.Unlisted):
    """Translates images and replies; see `app.contracts.Provider`. The secret is
    `access key id:secret access key[:session token]`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(1_000),
        Limits(5.0, 8, 1),
        "2026-11",
        "https://aws.amazon.com/service-terms/",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        sigv4.require_package()
        self._url = f"{base_url.rstrip('/')}/"
        self._secret, self._region = secret, model.region
        name, self._member, self._version_member = _OPERATIONS[model.operation]
        self._version = model.project_version_arn or ""
        self._options: dict[str, Any] = {"MinConfidence": options.min_confidence}
        if model.operation == "labels":
            self._options["MaxLabels"] = options.max_results
        if model.project_version_arn:
            self._options |= {"ProjectVersionArn": self._version, "MaxResults": options.max_results}
        self._headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"RekognitionService.{name}",
        }
        settings = orjson.dumps(self._options).decode()
        self.info = ProviderInfo(
            provider="rekognition",
            cache_scope=f"rekognition {self._url} {model.region} {name} {settings}",
            score_kind="percent",
            input_size=options.input_size,
            max_batch=1,
            max_image_bytes=5_242_880,
            min_side=80,
        )

    def __repr__(self) -> str:
        return f"Rekognition({self._url} {self._headers['X-Amz-Target']})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """Signed for now: a signature holds for five minutes."""
        [png] = pngs
        body = orjson.dumps({"Image": {"Bytes": b64encode(png).decode()}, **self._options})
        request = WireRequest("POST", self._url, self._headers, body)
        return sigv4.signed(request, "rekognition", self._region, self._secret)

    def reply(self, reply: WireReply, count: int) -> Reply:
        """An empty list is an answer: every label is below the threshold. Raises the request's error."""
        for word in self._secret.split(":")[1:]:
            reply = wire.redacted(reply, word)
        body = wire.parse(reply)
        request_id = reply.headers.get("x-amzn-requestid")
        if body is None or reply.status >= 300 or not isinstance(body.get(self._member), list):
            raise _error(reply, body, request_id)
        rows = wire.objects(body[self._member])
        outcome = wire.listed(rows, "Name", "Confidence", "percent", reply)
        if len(rows) != len(body[self._member]):
            raise ReplyInvalid("A label that is no object.", request_id=request_id, http_status=reply.status)
        if not all(-1e-4 <= value <= 100.0001 for value in outcome.values()):
            raise ReplyInvalid(
                "A confidence is no percentage.", request_id=request_id, http_status=reply.status
            )
        return Reply((outcome,), wire.text(body.get(self._version_member)) or self._version, request_id)


def _error(reply: WireReply, body: wire.Json | None, request_id: str | None) -> ProviderError:
    """From {__type: prefix#Name, message}: branch on the name, the status is 400 for nearly all."""
    said = wire.text(wire.member(body, "__type")) or reply.headers.get("x-amzn-errortype", "").split(":")[0]
    code = said.rpartition("#")[2]
    message = wire.text(wire.member(body, "message")) or wire.text(wire.member(body, "Message"))
    kind = _CODES.get(code)
    hint = "Check this machine's clock: signatures are dated." if "xpired" in code + message else None
    wait = _NOT_READY_SECONDS if code == "ResourceNotReadyException" else None
    return wire.refusal(kind, message, code, reply, request_id=request_id, wait=wait, hint=hint)
