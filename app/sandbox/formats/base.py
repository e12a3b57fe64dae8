"""What the smaller formats share: the way through the desk, and images out of JSON."""

import binascii
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import NAMES, Name, Scores, Size, labels_of
from app.sandbox.desk import Call, Desk, Model, Reason, RefusedError, Visit
from app.sandbox.images import BadImageError, Limits
from app.sandbox.replies import retry_headers
from app.sandbox.scoring import Failed, Outcome, Scored

Fetch = Callable[[], bytes]
Codes = Mapping[Reason, tuple[int, str]]
ANY = Limits(("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF"), 20_000_000, 85_000_000, 20_000, 1e9)
_STATUSES: dict[Reason, int] = {
    "no_key": 401, "wrong_key": 401, "throttled": 429, "quota": 429, "too_large": 413, "server_error": 500,
    "no_model": 404,
}  # fmt: skip
_MESSAGES: dict[Reason, str] = {"quota": "You have exceeded the quota of your plan."}


class WrongError(Exception):
    """The request is no good; nothing is scored."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class Format(ABC):
    """One wire format. `line` starts its lines on the bill; `codes` names its refusals."""

    line: str
    rps: float = 50.0
    price_micros: int = 1000
    limits: Limits = ANY
    codes: ClassVar[Codes] = {}

    def __init__(self, desk: Desk, size: Size) -> None:
        self.desk = desk
        self.size: Size = size

    @abstractmethod
    def routes(self) -> list[Route]: ...

    @abstractmethod
    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        """An error as the service words it."""

    def model(self, name: str) -> Model | None:
        """A classifier by its name, with `-128` or `-224` behind it where the size is chosen."""
        for size in (128, 224):
            if name.endswith(f"-{size}"):
                return self._model(name.removesuffix(f"-{size}"), size)
        return self._model(name, self.size)

    def _model(self, name: str, size: Size) -> Model | None:
        if name not in NAMES:
            return None
        full = f"{self.line}/{name}-{size}"
        return Model(name, full, name, size, self.price_micros)

    async def run(
        self,
        request: Request,
        key: str | None,
        model: Model | None,
        read: Callable[[Visit], list[Fetch]],
        answer: Callable[[Visit, list[Outcome], int], Response],
    ) -> Response:
        """Through the desk: `read` takes the images out of the body, `answer` words their outcomes."""
        line = model.line if model else f"{self.line}/(unknown)"
        call = Call(key or None, model, line, self.line, self.rps, 128 * 2**20)

        async def work(visit: Visit) -> Response:
            try:
                fetches = read(visit)
            except WrongError as error:
                return self.error(error.status, error.code, error.message)
            generation = self.desk.box.generation(visit.model.line)
            outcomes = await self.desk.score(visit, fetches, self.limits, generation)
            return answer(visit, outcomes, generation)

        return await self.desk.serve(request, call, work, self.refuse)

    def refuse(self, error: RefusedError) -> Response:
        status, code = self.codes.get(error.reason, (_STATUSES[error.reason], error.reason))
        headers = dict[str, str]()
        message = error.detail or _MESSAGES.get(error.reason) or error.reason.replace("_", " ")
        if error.reason == "throttled":
            style = self.desk.box.faults.retry_after_style or "seconds"
            headers = retry_headers(style)
            if style in ("text", "huge"):
                message = f"Please retry after {86_400 if style == 'huge' else 1} second"
        return self.error(status, code, message, headers)

    def failed(self, outcome: Failed, code: str, status: int = 400) -> Response:
        """One image that has no scores: for good, or by chance."""
        if outcome.bad is None:
            return self.error(503, "unavailable", "Please try again.")
        return self.error(status, code, outcome.bad.detail)


def document(body: bytes, code: str = "invalid_request") -> dict[str, Any]:
    """The JSON object of a body. Raises WrongError."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WrongError(code, "The body is not JSON.") from error
    if not isinstance(found, dict):
        raise WrongError(code, "The body is not a JSON object.")
    return found


def inside(value: object, *path: str | int) -> Any:  # noqa: ANN401 - JSON
    """What lies at `path`, or None."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def from_base64(text: object) -> Fetch:
    """How to come by bytes that were sent as base64; raises BadImageError when called."""

    def fetch() -> bytes:
        if not isinstance(text, str) or not text:
            raise BadImageError("argument", "no image content was given")
        try:
            return b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadImageError("argument", "the image content is not base64") from error

    return fetch


def by_label(outcome: Scored, name: Name) -> dict[str, float]:
    """Label -> score."""
    values: Scores = outcome.values
    return dict(zip(labels_of(name), values.tolist(), strict=True))


def bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
