"""Clarifai v2 REST: up to 128 images per request, an outcome per image, status codes inside the body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
from pybase64 import b64encode
from pydantic import BaseModel, ConfigDict, Field

from app.contracts import Limits, Outcome, Price, ProviderInfo, Reply, ScoreKind, WireReply, WireRequest
from app.errors import (
    ConfigError,
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    Rejected,
    ReplyInvalid,
    Throttled,
    Unavailable,
)
from app.providers import wire

_OK, _MIXED, _FAILURE = 10000, 10010, 10020

#: code -> (name, what it means). Names occur in place of numbers.
_CODES: dict[int, tuple[str, type[ProviderError]]] = {
    10030: ("TRY_AGAIN", Unavailable),
    11000: ("CONN_ACCOUNT_ISSUES", ConfigError),
    11001: ("CONN_TOKEN_INVALID", KeyRefused),
    11002: ("CONN_CREDENTIALS_INVALID", KeyRefused),
    11003: ("CONN_EXCEED_HOURLY_LIMIT", Throttled),
    11004: ("CONN_EXCEED_MONTHLY_LIMIT", QuotaExhausted),
    11005: ("CONN_THROTTLED", Throttled),
    11006: ("CONN_EXCEEDS_LIMITS", QuotaExhausted),
    11007: ("CONN_INSUFFICIENT_SCOPES", KeyRefused),
    11008: ("CONN_KEY_INVALID", KeyRefused),
    11009: ("CONN_KEY_NOT_FOUND", KeyRefused),
    11100: ("CONN_BAD_REQUEST_FORMAT", ConfigError),
    11101: ("CONN_DOES_NOT_EXIST", ConfigError),
    11102: ("CONN_INVALID_REQUEST", ConfigError),
    11103: ("CONN_METHOD_NOT_ALLOWED", ConfigError),
    21102: ("MODEL_UNTRAINED", ConfigError),
    21200: ("MODEL_DOES_NOT_EXIST", ConfigError),
    21201: ("MODEL_PERMISSION_DENIED", ConfigError),
    21202: ("MODEL_INVALID_ARGUMENT", ConfigError),
    21203: ("MODEL_INVALID_REQUEST", ConfigError),
    21313: ("MODEL_PREDICTION_FAILED", Unavailable),
    21351: ("MODEL_DEPLOYING", Throttled),  # not ready yet: wait, nothing was processed
    21353: ("MODEL_NOT_DEPLOYED", ConfigError),
    21354: ("MODEL_BUSY_PLEASE_RETRY", Throttled),
    21355: ("MODEL_LOADING", Throttled),
    30002: ("INPUT_DOWNLOAD_FAILED", Rejected),
    30101: ("INPUT_UNSUPPORTED_FORMAT", Rejected),
    30104: ("INPUT_INVALID_ARGUMENT", Rejected),
    30105: ("INPUT_OVER_LIMIT", Rejected),
    30106: ("INPUT_INVALID_URL", Rejected),
    30300: ("ALL_INPUT_INVALID_BYTES", Rejected),
    39996: ("INPUT_CONNECTION_FAILED", Unavailable),
    39997: ("REQUEST_DISABLED_FOR_MAINTENANCE", Unavailable),
    40001: ("PREDICT_INVALID_REQUEST", ConfigError),
    40030: ("RPC_REQUEST_QUEUE_FULL", Unavailable),
    40031: ("RPC_SERVER_UNAVAILABLE", Unavailable),
    40032: ("RPC_REQUEST_TIMEOUT", Unavailable),
    40033: ("RPC_MAX_MESSAGE_SIZE_EXCEEDED", Rejected),  # of a batch: the gateway halves it
    47103: ("MP_DOWNLOAD_MAX_SIZE_EXCEEDED_ERROR", Rejected),
    47104: ("MP_IMAGE_DECODE_ERROR", Rejected),
    47106: ("MP_IMAGE_PROCESSING_ERROR", Rejected),
    90400: ("BAD_REQUEST", ConfigError),
    90500: ("SERVER_ERROR", Unavailable),
}
_BY_NAME = {name: code for code, (name, _) in _CODES.items()} | {
    "SUCCESS": _OK,
    "MIXED_STATUS": _MIXED,
    "FAILURE": _FAILURE,
}
_INTERNAL = (range(98004, 98022), range(99001, 99010))
_LOADING = (21351, 21355)
_LOADING_SECONDS = 10.0
#: General models score each concept on its own; the others' heads are softmax.
_INDEPENDENT_MODELS = ("general-image-recognition", "aaa03c23b3724a16a56b629203edc62c")


class Model(BaseModel):
    """Which source model. `user_id` and `app_id` go together; without them the key must imply the app."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    user_id: str | None = None
    app_id: str | None = None
    model_id: str = Field(min_length=1)
    version_id: str | None = Field(None, description="Without it the newest version answers.")


class Options(BaseModel):
    """How to ask."""

    model_config = ConfigDict(extra="forbid")

    max_concepts: int = Field(
        200, ge=1, le=1000, description="Concepts per answer; the service gives 20 by itself."
    )
    min_value: float = Field(0.0, ge=0, le=1)
    select_concepts: tuple[str, ...] = Field((), description="Names of the only concepts to answer with.")
    language: str | None = None
    score_kind: ScoreKind | None = Field(None, description="Empty: independent for the general model.")
    input_size: int = Field(224, ge=8, le=4096)


class Clarifai:
    """Translates images and replies; see `app.contracts.Provider`."""

    Model: ClassVar[type[BaseModel]] = Model
    Options: ClassVar[type[BaseModel]] = Options
    defaults: ClassVar[wire.Defaults] = wire.Defaults(
        Price(1_200),
        Limits(15.0, 16, 32),
        "2026-11",
        "https://www.clarifai.com/terms",
    )

    def __init__(self, base_url: str, model: Model, secret: str, options: Options) -> None:
        base = f"{base_url.rstrip('/')}/v2"
        if model.user_id and model.app_id:
            base += f"/users/{_path(model.user_id)}/apps/{_path(model.app_id)}"
        base += f"/models/{_path(model.model_id)}"
        if model.version_id:
            base += f"/versions/{_path(model.version_id)}"
        self._base, self._version = base, model.version_id or ""
        self._secret = secret
        self._headers = {"Authorization": f"Key {secret}", "Content-Type": "application/json"}
        config = _config(options)
        self._tail = b'],"model":{"output_info":{"output_config":' + config + b"}}}"
        kind = options.score_kind or (
            "independent" if model.model_id in _INDEPENDENT_MODELS else "probability"
        )
        self.info = ProviderInfo(
            provider="clarifai",
            cache_scope=f"clarifai {base} {config.decode()}",
            score_kind=kind,
            input_size=options.input_size,
            max_batch=128,
            max_image_bytes=20_000_000,
        )

    def __repr__(self) -> str:
        return f"Clarifai({self._base})"

    def request(self, pngs: Sequence[bytes]) -> WireRequest:
        """Inputs are named q0, q1, ...: replies are matched by these names."""
        parts = [b'{"inputs":[']
        for n, png in enumerate(pngs):
            start = (
                b'{"id":"q%d","data":{"image":{"base64":"'
                if n == 0
                else b',{"id":"q%d","data":{"image":{"base64":"'
            )
            parts += (start % n, b64encode(png), b'"}}}')
        parts.append(self._tail)
        return WireRequest("POST", f"{self._base}/outputs", self._headers, b"".join(parts))

    def reply(self, reply: WireReply, count: int) -> Reply:
        """Raises the ProviderError of the whole request."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        if body is None:
            raise wire.by_status(reply)
        outputs = wire.objects(body.get("outputs"))
        code = _code(body)
        request_id = wire.text(wire.member(body, "status", "req_id")) or None
        if code not in (0, _OK, _MIXED, _FAILURE):
            raise _error(wire.member(body, "status"), code, reply, request_id)
        if not outputs or (code == 0 and reply.status >= 300):
            if reply.status >= 300:
                raise wire.by_status(reply, _message(wire.member(body, "status")), request_id=request_id)
            raise ReplyInvalid("A success without outputs.", request_id=request_id, http_status=reply.status)
        matched = _match(outputs, count)
        outcomes = tuple(self._outcome(output, reply, request_id) for output in matched)
        versions = (wire.text(wire.member(output, "model", "model_version", "id")) for output in outputs)
        return Reply(outcomes, next(filter(None, versions), self._version), request_id)

    def labels_request(self) -> WireRequest | None:
        return WireRequest("GET", f"{self._base}/output_info", self._headers, b"")

    def labels(self, reply: WireReply) -> tuple[str, ...]:
        """Raises ProviderError, also when the answer lists no concepts."""
        reply = wire.redacted(reply, self._secret)
        body = wire.parse(reply)
        if body is None:
            raise wire.by_status(reply)
        code = _code(body)
        if code != _OK and not (code == 0 and reply.status < 300):
            raise _error(wire.member(body, "status"), code, reply, None)
        info = wire.member(body, "model", "output_info") or wire.member(
            body, "model", "model_version", "output_info"
        )
        concepts = wire.objects(wire.member(info, "data", "concepts"))
        if not concepts:
            raise ReplyInvalid("The model does not list its concepts.", http_status=reply.status)
        return tuple(wire.distinct([_names(concept) for concept in concepts]))

    def _outcome(self, output: wire.Json | None, reply: WireReply, request_id: str | None) -> Outcome:
        """Labels and scores of one image, or why there are none."""
        if output is None:
            return ReplyInvalid("No output for this input.", request_id=request_id, http_status=reply.status)
        code = _code(output)
        if code not in (0, _OK):
            return _error(wire.member(output, "status"), code, reply, request_id)
        concepts = wire.objects(wire.member(output, "data", "concepts"))
        labels = wire.distinct([_names(concept) for concept in concepts])
        try:
            # A concept without `value` is malformed: it could be read as 0 or as 1.
            scores = [wire.score(concept.get("value"), self.info.score_kind) for concept in concepts]
        except ReplyInvalid as error:
            error.request_id, error.http_status = request_id, reply.status
            return error
        if not scores or "" in labels:
            return ReplyInvalid(
                "An output without concepts.", request_id=request_id, http_status=reply.status
            )
        return dict(zip(labels, scores, strict=True))


def _path(value: str) -> str:
    return quote(value, safe="")


def _config(options: Options) -> bytes:
    config: dict[str, Any] = {"max_concepts": options.max_concepts}
    if options.min_value:
        config["min_value"] = options.min_value
    if options.language:
        config["language"] = options.language
    if options.select_concepts:
        config["select_concepts"] = [{"name": name} for name in options.select_concepts]
    return orjson.dumps(config)


def _names(concept: wire.Json) -> tuple[str, str]:
    return wire.text(concept.get("name")), wire.text(concept.get("id"))


def _match(outputs: list[wire.Json], count: int) -> list[wire.Json | None]:
    """One output (or None) per input: by the input's name, by position when no output names its input."""
    names = [wire.text(wire.member(output, "input", "id")) for output in outputs]
    if not any(names):
        return list(outputs) if len(outputs) == count else [None] * count
    by_name: dict[str, wire.Json] = {}
    for name, output in zip(names, outputs, strict=True):
        by_name.setdefault(name, output)
    return [by_name.get(f"q{n}") for n in range(count)]


def _code(holder: wire.Json) -> int:
    """The status code of a body or output: a number, a numeral or a name; 0 when absent, -1 when unknown."""
    code = wire.member(holder, "status", "code")
    if isinstance(code, str):
        return _BY_NAME.get(code) or (int(code) if code.isdecimal() else -1)
    return code if isinstance(code, int) else 0


def _message(status: Mapping[str, Any] | None) -> str:
    parts = (wire.text(wire.member(status, name)) for name in ("description", "details"))
    return ". ".join(part for part in parts if part)


def _error(
    status: Mapping[str, Any] | None, code: int, reply: WireReply, request_id: str | None
) -> ProviderError:
    """The error of a status object, of the body or of one output."""
    message = _message(status)
    _, kind = _CODES.get(code, ("", None))
    if kind is None:
        if any(code in codes for codes in _INTERNAL):
            kind = Unavailable
        elif 30000 <= code < 31000:
            kind = Rejected
        elif reply.status < 300:
            kind = Unavailable  # an unknown failure of one output
        else:
            return wire.by_status(reply, message, request_id=request_id)
    wait = wire.retry_after(reply, message)
    if wait is None and code in _LOADING:
        wait = _LOADING_SECONDS
    return wire.refusal(kind, message, str(code), reply, request_id=request_id, wait=wait)
