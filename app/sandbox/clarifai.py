"""Clarifai's v2 REST interface, as its clients see it."""

import binascii
import uuid
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.clarifai_models import Remote, everything, find
from app.sandbox.classifiers import Size
from app.sandbox.desk import Call, Desk, RefusedError, Visit
from app.sandbox.images import BadImageError, Fault, Limits
from app.sandbox.replies import html_reply, json_reply, retry_headers
from app.sandbox.scoring import Failed, Outcome, ranked

RATE_LIMIT_RPS = 15.0
MAX_INPUTS = 128
MAX_BODY = 128 * 1024 * 1024
DEFAULT_CONCEPTS = 20
LIMITS = Limits(("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF"), 20_000_000, 85_000_000, 10**9, 1e9)

Status = tuple[int, str]
OK: Status = (10000, "Ok")
CODES: dict[Fault, Status] = {
    "empty": (30104, "Input has invalid argument"),
    "argument": (30104, "Input has invalid argument"),
    "url": (30002, "Download failed; check URL"),
    "format": (30101, "Input has unsupported format"),
    "broken": (47104, "Image decoding failed"),
    "bytes": (30105, "Input over size limit"),
    "dimensions": (30105, "Input over size limit"),
}
BY_CHANCE: Status = (40031, "RPC server unavailable")


class _Image(BaseModel):
    base64: str | None = None
    url: str | None = None


class _Data(BaseModel):
    image: _Image = _Image()


class _Input(BaseModel):
    id: str | None = None
    data: _Data = _Data()


class _Concept(BaseModel):
    id: str | None = None
    name: str | None = None


class _Config(BaseModel):
    max_concepts: Annotated[int, Field(ge=0)] = 0
    min_value: Annotated[float, Field(ge=0, le=1)] = 0.0
    select_concepts: list[_Concept] = []


class _OutputInfo(BaseModel):
    output_config: _Config = _Config()


class _Model(BaseModel):
    output_info: _OutputInfo = _OutputInfo()


class _Body(BaseModel):
    """What is read of a predict request; members that are not named here are ignored, as the service does."""

    inputs: list[_Input] = []
    model: _Model = _Model()


class Clarifai:
    """The routes under /v2 on one desk; plain model ids mean the `size` form."""

    def __init__(self, desk: Desk, size: Size) -> None:
        self._desk = desk
        self._size: Size = size

    def routes(self) -> list[Route]:
        """Every path in its short and its user-and-app form."""
        paths: list[tuple[str, str, Callable[[Request], object]]] = [
            ("/models", "GET", self._list_models),
            ("/models/{model_id}", "GET", self._get_model),
            ("/models/{model_id}/output_info", "GET", self._get_output_info),
            ("/models/{model_id}/versions", "GET", self._list_versions),
            ("/models/{model_id}/versions/{version_id}", "GET", self._get_model),
            ("/models/{model_id}/versions/{version_id}/output_info", "GET", self._get_output_info),
            ("/models/{model_id}/outputs", "POST", self._predict),
            ("/models/{model_id}/versions/{version_id}/outputs", "POST", self._predict),
        ]
        prefixes = ("/v2", "/v2/users/{user_id}/apps/{app_id}")
        routes = [
            Route(f"{prefix}{path}", run, methods=[verb]) for prefix in prefixes for path, verb, run in paths
        ]
        return [
            *routes,
            Route("/v2/{rest:path}", _no_such_path, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    # --- predicting ---

    async def _predict(self, request: Request) -> Response:
        remote = self._find(request)
        call = Call(
            key=_key(request),
            model=None if remote is None else remote.model,
            line="clarifai/(unknown)" if remote is None else remote.model.line,
            operation="clarifai",
            default_rps=RATE_LIMIT_RPS,
            max_body=MAX_BODY,
        )

        async def work(visit: Visit) -> Response:
            assert remote is not None
            return await self._outputs(visit, remote, request.path_params.get("version_id"))

        return await self._desk.serve(request, call, work, self._refusal)

    async def _outputs(self, visit: Visit, remote: Remote, pinned: str | None) -> Response:
        """Score a batch: 200 if every input worked, 207 if some did, 400 if none."""
        try:
            body = _Body.model_validate_json(visit.body)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            return _error(400, (11100, "Bad request format"), f"{problem['loc']}: {problem['msg']}")
        if not body.inputs:
            return _error(400, (11102, "Invalid request"), "inputs: at least one is needed")
        if len(body.inputs) > MAX_INPUTS:
            details = f"inputs: {len(body.inputs)} given, at most {MAX_INPUTS} allowed"
            return _error(400, (11102, "Invalid request"), details)
        version = pinned or self._current(remote)
        generation = remote.versions.index(version)
        outcomes = await self._desk.score(visit, [_fetch(given) for given in body.inputs], LIMITS, generation)
        config = body.model.output_info.output_config
        model = _model_json(remote, version)
        outputs = [
            _output(given, outcome, model, _concepts(outcome, remote, config, visit))
            for given, outcome in zip(body.inputs, outcomes, strict=True)
        ]
        failures = sum(isinstance(outcome, Failed) for outcome in outcomes)
        if failures == 0:
            return json_reply({"status": _status(OK), "outputs": outputs})
        if failures < len(outcomes):
            return json_reply({"status": _status((10010, "Mixed Success")), "outputs": outputs}, 207)
        return json_reply({"status": _status((10020, "Failure")), "outputs": outputs}, 400)

    def _refusal(self, error: RefusedError) -> Response:
        if error.reason == "throttled":
            return self._throttled(error.limit)
        if error.reason == "server_error":
            return _server_error(error.pick)
        replies: dict[str, tuple[int, Status, str]] = {
            "no_key": (
                401,
                (11002, "Invalid authentication credentials"),
                "No Authorization header was sent",
            ),
            "wrong_key": (401, (11009, "API key not found"), "The key is unknown or was revoked"),
            "quota": (
                429,
                (11004, "Monthly limit exceeded"),
                "The plan's operations of this month are used up",
            ),
            "too_large": (413, (40033, "Message size exceeded"), error.detail),
            "no_model": (404, (21200, "Model does not exist"), "No such model or version"),
        }
        return _error(*replies[error.reason])

    def _throttled(self, limit: float) -> Response:
        """11005; the service itself gives no Retry-After."""
        style = self._desk.box.faults.retry_after_style or "none"
        details = f"exceeded limit of {limit:g} requests per second"
        if style in ("text", "huge"):
            details += f". Please retry after {86_400 if style == 'huge' else 1} second"
        return _error(429, (11005, "Making too many requests"), details, retry_headers(style))

    # --- looking around ---

    def _find(self, request: Request) -> Remote | None:
        """The model that the path names, if its version exists too."""
        remote = find(request.path_params["model_id"], self._size)
        version = request.path_params.get("version_id")
        return remote if remote is None or version is None or version in remote.versions else None

    async def _list_models(self, request: Request) -> Response:
        """One page of all models; beyond the last page the list is empty."""
        if (refused := self._locked(request)) is not None:
            return refused
        try:
            page = max(1, int(request.query_params.get("page", "1")))
            per_page = min(1000, max(1, int(request.query_params.get("per_page", "20"))))
        except ValueError:
            return _error(400, (11102, "Invalid request"), "page and per_page are numbers")
        shown = everything(self._size)[(page - 1) * per_page : page * per_page]
        return json_reply({"status": _status(OK), "models": [self._described(remote) for remote in shown]})

    async def _get_model(self, request: Request) -> Response:
        return self._about(request, lambda remote, version: {"model": _model_json(remote, version)})

    async def _get_output_info(self, request: Request) -> Response:
        def describe(remote: Remote, version: str) -> dict[str, object]:
            concepts = [
                {"id": i, "name": name, "value": 0, "app_id": "main"} for i, name in remote.concepts()
            ]
            model = _model_json(remote, version)
            info = {"output_config": {"concepts_mutually_exclusive": True}, "type": "concept"}
            return {"model": {**model, "output_info": {**info, "data": {"concepts": concepts}}}}

        return self._about(request, describe)

    async def _list_versions(self, request: Request) -> Response:
        return self._about(
            request, lambda remote, version: {"model_versions": [_version_json(remote, version)]}
        )

    def _about(self, request: Request, describe: Callable[[Remote, str], dict[str, object]]) -> Response:
        """A free question about one model."""
        if (refused := self._locked(request)) is not None:
            return refused
        remote = self._find(request)
        if remote is None:
            return self._refusal(RefusedError("no_model"))
        version = request.path_params.get("version_id") or self._current(remote)
        return json_reply({"status": _status(OK), **describe(remote, version)})

    def _locked(self, request: Request) -> Response | None:
        key = _key(request)
        if key is None:
            return self._refusal(RefusedError("no_key"))
        return None if self._desk.opens(key) else self._refusal(RefusedError("wrong_key"))

    def _described(self, remote: Remote) -> dict[str, object]:
        return _model_json(remote, self._current(remote))

    def _current(self, remote: Remote) -> str:
        return remote.versions[self._desk.box.generation(remote.model.line)]


async def _no_such_path(request: Request) -> Response:
    known = request.url.path.rstrip("/").endswith(("/outputs", "/models", "/versions", "/output_info"))
    if known:
        return _error(405, (11103, "Method not allowed"), f"{request.method} {request.url.path}")
    return _error(404, (11101, "Resource does not exist"), request.url.path)


def _key(request: Request) -> str | None:
    """The key of `Authorization: Key ...` (or `Bearer ...`)."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() in ("key", "bearer") else None


def _fetch(given: _Input) -> Callable[[], bytes]:
    """How to come by one input's bytes; raises BadImageError when called."""

    def fetch() -> bytes:
        image = given.data.image
        if image.base64:
            try:
                return b64decode(image.base64, validate=True)
            except (binascii.Error, ValueError) as error:
                raise BadImageError("argument", "base64: not standard base64") from error
        if image.url:
            raise BadImageError("url", "the sandbox downloads nothing")
        raise BadImageError("argument", "neither base64 nor url was given")

    return fetch


@cache
def _concept_rows(remote: Remote) -> list[tuple[str, str]]:
    return remote.concepts()


def _concepts(outcome: Outcome, remote: Remote, config: _Config, visit: Visit) -> list[dict[str, object]]:
    """The concepts that a request asks for, by falling value; `value` is always there, even when 0."""
    if isinstance(outcome, Failed):
        return []
    rows = _concept_rows(remote)
    order = ranked(outcome.values, visit.luck.faults)
    if config.select_concepts:
        wanted = {value for chosen in config.select_concepts for value in (chosen.id, chosen.name) if value}
        order = [label for label in order if wanted.intersection(rows[label])]
    values = outcome.values.tolist()
    order = [label for label in order if values[label] >= config.min_value]
    return [
        {"id": rows[label][0], "name": rows[label][1], "value": values[label], "app_id": "main"}
        for label in order[: config.max_concepts or DEFAULT_CONCEPTS]
    ]


def _output(
    given: _Input, outcome: Outcome, model: dict[str, object], concepts: list[dict[str, object]]
) -> dict[str, object]:
    """One element of `outputs`. The image is echoed as the service does: base64 comes back as "true"."""
    image = given.data.image
    echo = {"url": image.url} if image.url else {"base64": "true"}
    status: dict[str, object] = {"code": OK[0], "description": OK[1]}
    if isinstance(outcome, Failed):
        code, text = BY_CHANCE if outcome.bad is None else CODES[outcome.bad.fault]
        status = {
            "code": code,
            "description": text,
            "details": outcome.bad.detail if outcome.bad else "try again",
        }
    return {
        "id": uuid.uuid4().hex,
        "status": status,
        "created_at": _now(),
        "model": model,
        "input": {"id": given.id or uuid.uuid4().hex, "data": {"image": echo}},
        "data": {} if isinstance(outcome, Failed) else {"concepts": concepts},
    }


def _model_json(remote: Remote, version: str) -> dict[str, object]:
    message = "Show output_info with: GET /models/{model_id}/output_info"
    return {
        "id": remote.model.id,
        "name": remote.entry.title,
        "created_at": remote.entry.created_at,
        "app_id": "main",
        "user_id": "clarifai",
        "model_type_id": "visual-classifier",
        "output_info": {"output_config": {}, "message": message, "type": "concept"},
        "model_version": _version_json(remote, version),
    }


def _version_json(remote: Remote, version: str) -> dict[str, object]:
    status = {"code": 21100, "description": "Model is trained and ready"}
    return {"id": version, "created_at": remote.entry.created_at, "status": status}


def _server_error(pick: int) -> Response:
    if pick == 0:
        return html_reply(502)
    faults: list[tuple[int, Status]] = [
        (500, (90500, "Server error")),
        (503, (40031, "RPC server unavailable")),
    ]
    return _error(*faults[pick - 1], "please try again")


def _status(status: Status) -> dict[str, object]:
    return {"code": status[0], "description": status[1], "req_id": uuid.uuid4().hex}


def _error(http: int, status: Status, details: str, headers: dict[str, str] | None = None) -> Response:
    return json_reply({"status": {**_status(status), "details": details}}, http, headers)


def _now() -> str:
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}000Z"
