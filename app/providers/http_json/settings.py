"""What a user says of a service that `http_json` is to speak to, checked when it is given.

Two spellings mean the same: the groups `request`, `image`, `response`, `errors`, and, for simple services,
their members at the top (`url`, `body`, `labels_path`, ...; see `_SHORT`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from app.contracts import ScoreKind

#: What a template may name. `{{name}}` means the same; names of one picture may have other spellings.
VARIABLES = (
    "image.b64", "image.data_url", "image.sha256", "input.id", "secret", "model", "version"
)  # fmt: skip
_SPELLINGS = ("image", "b64", "base64", "image.base64", "image_b64", "image_base64")
ALIASES = dict.fromkeys(_SPELLINGS, "image.b64") | {
    "image_data_url": "image.data_url",
    "data_url": "image.data_url",
    "id": "input.id",
}
#: Variables of the service's environment that a template may name: none that is set for anything else.
ENVIRONMENT = "env.REPROG_HTTP_"
VARIABLE = re.compile(r"\{\{?\s*([A-Za-z_][A-Za-z0-9_.]*)\s*\}?\}")

_KINDS: dict[str, str] = {"sigmoid": "independent", "softmax": "probability", "enum": "likelihood"}
_BODIES = ("raw", "json", "multipart", "form", "none", "url_query")


def _path(value: str) -> str:
    try:
        jmespath.compile(value)
    except JMESPathError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{value!r} is no JMESPath expression: {why}") from None
    return value


def _template(value: str) -> str:
    """Raises ValueError for a variable that does not exist."""
    for name in VARIABLE.findall(value):
        if name.startswith("env."):
            if not name.startswith(ENVIRONMENT):
                raise ValueError(
                    f"{{{name}}} is not read: only variables whose names begin with "
                    f"{ENVIRONMENT.removeprefix('env.')} are, such as {{{ENVIRONMENT}TOKEN}}"
                )
            continue
        if ALIASES.get(name, name) not in VARIABLES:
            raise ValueError(f"there is no variable {{{name}}}; there are {', '.join(VARIABLES)}")
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None
    return value


Path = Annotated[str, Field(min_length=1), AfterValidator(_path)]
#: A JMESPath expression, or `header:NAME`.
Place = Annotated[
    str, Field(min_length=1), AfterValidator(lambda v: v if v.startswith("header:") else _path(v))
]
Template = Annotated[str, AfterValidator(_template)]
Regex = Annotated[str, AfterValidator(_regex)]


class Group(BaseModel):
    """A member we do not know is an error that names it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Auth(Group):
    """Where the connection's secret goes. `bearer` sends `Authorization: Bearer SECRET`; `basic` takes
    `user:password` as the secret; `aws_sigv4` `access key id:secret access key[:session token]`."""

    kind: Literal["auto", "none", "bearer", "header", "query", "form", "basic", "aws_sigv4"] = "auto"
    name: str = Field(default="", description="Of the header, query parameter or form field.")
    prefix: str = Field(default="", description="Before the secret in a header, such as `Key `.")
    service: str = "execute-api"
    region: str = "us-east-1"

    @model_validator(mode="after")
    def _named(self) -> Auth:
        if self.kind in ("header", "query", "form") and not self.name:
            raise ValueError(f"auth of kind {self.kind} needs a `name`")
        return self


class Multipart(Group):
    """One file part. `filename` and `content_type` null: not sent."""

    field: str = "image"
    filename: str | None = "image.png"
    content_type: str | None = "image/png"
    extra: dict[str, Template] = {}


class Body(Group):
    """What is sent. A `json` body is a template: its texts may hold variables."""

    kind: Literal["raw", "json", "multipart", "form", "none", "url_query"] = "raw"
    content_type: str | None = Field(default="", description="null: send none; empty: what fits the kind.")
    json_: Any = Field(default=None, alias="json")
    form: dict[str, Template] = {}
    multipart: Multipart = Multipart()

    @field_validator("json_")
    @classmethod
    def _known(cls, value: object) -> object:
        for text in texts(value):
            _template(text)
        return value

    @model_validator(mode="after")
    def _complete(self) -> Body:
        if self.kind == "json" and self.json_ is None:
            raise ValueError("a body of kind json needs the member `json`, a template")
        return self


class Batch(Group):
    """Images per request. Above 1, `repeat_path` names the list of the JSON template whose only element is
    repeated for each image, such as `inputs`."""

    max_inputs: Annotated[int, Field(ge=1, le=1024)] = 1
    repeat_path: str | None = None


class Request(Group):
    """`url`: a path below the connection's base_url, or a whole URL on its host."""

    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    url: Template = ""
    query: dict[str, Template] = {}
    headers: dict[str, Template] = {}
    auth: Auth = Auth()
    body: Body = Body()
    batch: Batch = Batch()

    @field_validator("auth", mode="before")
    @classmethod
    def _auth_short(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("body", mode="before")
    @classmethod
    def _body_short(cls, value: object) -> object:
        """`"raw"`, a template as JSON text, or a template itself beside the full form."""
        if isinstance(value, str) and value in (*_BODIES, "binary"):
            return {"kind": "raw" if value == "binary" else value}
        if isinstance(value, str):
            return {"kind": "json", "json": _json(value)}
        full = isinstance(value, Mapping) and (
            value.get("kind") in _BODIES or isinstance(value.get("multipart"), Mapping)
        )
        if full or isinstance(value, Body):
            return {"kind": "multipart", **value} if isinstance(value, Mapping) else value
        return value if value is None else {"kind": "json", "json": value}

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not (
                text.isascii() and text.isprintable()
            ):
                raise ValueError(f"{name!r} cannot be sent as a header")
            if name.lower() in ("host", "content-length", "transfer-encoding", "connection"):
                raise ValueError(f"{name} is set by the client")
        return value


class Image(Group):
    """`encode`: `png` (lossless) or `jpeg:QUALITY[:420|:444]`."""

    encode: Annotated[str, Field(pattern=r"^(png|jpeg:[1-9]\d?\d?(:420|:444)?)$")] = "png"
    input_size: Annotated[int, Field(ge=8, le=4096)] = 224
    max_bytes: Annotated[int, Field(ge=1)] = 20_000_000
    max_bytes_applies_to: Literal["raw", "base64"] = "raw"
    min_side: Annotated[int, Field(ge=1)] = 1


class Score(Group):
    """What a number means. `enum` maps words to ordinal codes (null: no information)."""

    kind: ScoreKind = "probability"
    scale: float = 1.0
    enum: dict[str, float | None] = {}
    normalise: Literal["none", "softmax", "sum1"] = "none"

    @field_validator("kind", mode="before")
    @classmethod
    def _same(cls, value: object) -> object:
        return _KINDS.get(value, value) if isinstance(value, str) else value


class Response(Group):
    """Where labels and scores are. Paths are JMESPath; those below `items_path` start at one image's item."""

    status_path: Path | None = None
    ok_values: list[Any] = []
    retry_values: list[Any] = []
    config_error_values: list[Any] = []
    items_path: Path | None = Field(
        default=None, description="One element per image; null: the whole body is one."
    )
    item_id_path: Path | None = Field(
        default=None, description="Where the input's id comes back; null: by position."
    )
    item_status_path: Path | None = None
    layout: Literal["auto", "list", "dict", "parallel", "scalar", "matrix"] = "auto"
    labels_path: Path | None = None
    scores_path: Path | None = None
    labels: Annotated[list[str], Field(max_length=100_000)] = []
    complement: str | None = Field(default=None, description="Of one score p: the label that has 1 - p.")
    score: Score = Score()
    missing: Literal["censored", "zero", "error"] = "censored"
    aggregate: Literal["max", "noisy_or"] = "max"
    billed_units_path: Path | None = Field(
        default=None, description="How many images the service says it bills for the whole request."
    )
    version_path: Place | None = None
    request_id_path: Place | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Response:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("`labels` names a label twice")
        if self.complement is not None and self.complement in self.labels[:1]:
            raise ValueError("`complement` is the other label")
        if self.layout in ("list", "parallel") and self.labels_path is None:
            raise ValueError(f"layout {self.layout} needs labels_path")
        if self.layout in ("scalar", "matrix") and not self.labels:
            raise ValueError(f"layout {self.layout} needs `labels`")
        if self.missing != "censored" and not self.labels:
            raise ValueError(f"missing: {self.missing} needs `labels`, the full list")
        if not (self.labels_path or self.scores_path or self.items_path or self.layout == "dict"):
            raise ValueError("say where the scores are: scores_path, with labels_path or `labels`")
        return self


class Rule(Group):
    """The first rule whose conditions all hold decides. `wait_path`: seconds to wait, in the body."""

    http: int | None = None
    code: Regex | None = None
    message: Regex | None = None
    family: Literal["throttled", "transient", "permanent_input", "permanent_config", "key", "quota"]
    wait_path: Path | None = None


class Errors(Group):
    """How the service says what is wrong; what no rule names falls back to the HTTP status."""

    code_paths: list[Path] = ["error.code", "code", "status.code", "__type", "error"]
    message_paths: list[Path] = [
        "error.message", "message", "status.description", "detail", "error"
    ]  # fmt: skip
    classify: list[Rule] = []
    retry_after: Regex | None = Field(default=None, description="Its first group: seconds, in the message.")


#: Members that may stand at the top, and where they belong.
_SHORT: dict[str, tuple[str, ...]] = {
    **{name: ("request", name) for name in ("method", "url", "query", "headers", "auth", "body", "batch")},
    **{name: ("image", name) for name in ("encode", "input_size", "max_bytes", "min_side")},
    **{name: ("response", name) for name in Response.model_fields if name != "score"},
    **{name: ("response", "score", name) for name in ("scale", "enum", "normalise")},
    "path": ("request", "url"),
    "params": ("request", "query"),
    "body_template": ("request", "body"),
    "json": ("request", "body"),
    "max_batch": ("request", "batch", "max_inputs"),
    "repeat_path": ("request", "batch", "repeat_path"),
    "label_path": ("response", "labels_path"),
    "score_path": ("response", "scores_path"),
    "score_kind": ("response", "score", "kind"),
    "classify": ("errors", "classify"),
}


class Model(Group):
    """A service and one of its models. `model` and `version` are variables of templates; `version` also
    stands for the model version where the service does not tell one."""

    model: str = ""
    version: str = ""
    request: Request = Request()
    image: Image = Image()
    response: Response
    errors: Errors = Errors()

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: object) -> object:
        """The short spelling as the full one."""
        if not isinstance(given, Mapping):
            return given
        full: dict[str, Any] = {k: v for k, v in given.items() if k not in _SHORT}
        full.setdefault("response", {})
        for name, value in given.items():
            if name not in _SHORT:
                continue
            *groups, last = _SHORT[name]
            holder = full
            for group in groups:
                inner = holder.get(group)
                if not (inner is None or isinstance(inner, Mapping)):
                    raise ValueError(f"`{group}` is an object")
                holder[group] = holder = dict(inner or {})
            if last in holder:
                raise ValueError(f"`{name}` is given twice: at the top and as {'.'.join((*groups, last))}")
            holder[last] = value
        return full


class Options(Group):
    """None: everything is in `model`."""


def texts(template: object) -> list[str]:
    """Every text of a JSON template, names of members included."""
    if isinstance(template, str):
        return [template]
    if isinstance(template, Mapping):
        return [text for name, value in template.items() for text in (str(name), *texts(value))]
    return [text for value in template for text in texts(value)] if isinstance(template, list) else []


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"a body given as text is one of {', '.join(_BODIES)}, or a JSON template: {error}"
        ) from None
