"""Azure Custom Vision's prediction interface, as its clients see it."""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import Name, Size, labels_of
from app.sandbox.desk import Call, Desk, Model, RefusedError, Visit
from app.sandbox.images import Fault, Limits
from app.sandbox.multipart import part
from app.sandbox.replies import html_reply, json_reply, retry_headers
from app.sandbox.scoring import Failed, Scored, ranked

STORED_RPS, NOSTORE_RPS = 10.0, 20.0
PRICE_MICROS = 2000
MAX_IMAGE = 4 * 1024 * 1024
MAX_BODY = 8 * 1024 * 1024
LIMITS = Limits(("JPEG", "PNG", "BMP", "GIF"), MAX_IMAGE, 10_240 * 10_240, 10_240, 25.0)

PROJECTS: dict[uuid.UUID, Name] = {
    uuid.UUID("43434343-4343-4343-8343-434343434343"): "traffic-signs",
    uuid.UUID("10001000-1000-4000-8000-100010001000"): "imagenet",
}
_PATH = re.compile(
    r"(?P<api>v3\.\d)(?:-preview)?/prediction/(?P<project>[^/]+)/(?P<task>classify|detect)/iterations/"
    r"(?P<name>[^/]+)/(?P<kind>image|url)(?P<nostore>/nostore)?/?",
    re.IGNORECASE,
)
Problem = tuple[str, str]
PROBLEMS: dict[Fault, Problem] = {
    "empty": ("BadRequestImageStream", "No image data was received."),
    "argument": ("BadRequestImageStream", "The form has no part called imageData."),
    "url": ("BadRequestImageUrl", "The image could not be downloaded from the given url."),
    "format": ("BadRequestImageFormat", "The image is not a valid JPEG, PNG, BMP or GIF."),
    "broken": ("BadRequestImageFormat", "The image data cannot be decoded."),
    "bytes": ("BadRequestImageSizeBytes", "Image size exceeds 4MB."),
    "dimensions": ("BadRequestImageDimensions", "Image sides exceed 10240 pixels or the ratio 25:1."),
}


@dataclass(frozen=True)
class Target:
    """What a path asks for."""

    project: uuid.UUID
    model: Model
    url: bool

    def iteration(self, generation: int) -> str:
        return str(uuid.uuid5(self.project, f"iteration {self.model.size} {generation}"))


class CustomVision:
    """The routes under /customvision on one desk; plain published names mean the `size` form."""

    def __init__(self, desk: Desk, size: Size) -> None:
        self._desk = desk
        self._size: Size = size

    def routes(self) -> list[Route]:
        """One route: the service takes its paths in any case, which a route template cannot."""
        return [Route("/customvision/{rest:path}", self._predict, methods=["POST"])]

    async def _predict(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.path_params["rest"])
        if found is None or found["task"].lower() != "classify":
            return _problem(404, ("NotFound", "Resource not found."))
        found_target = self._target(found)
        target = found_target if isinstance(found_target, Target) else None
        nostore = found["nostore"] is not None
        call = Call(
            key=request.headers.get("prediction-key") or None,
            model=target.model if target else None,
            line=target.model.line if target else "custom_vision/(unknown)",
            operation="ClassifyImageWithNoStore" if nostore else "ClassifyImage",
            default_rps=NOSTORE_RPS if nostore else STORED_RPS,
            max_body=MAX_BODY,
        )

        async def work(visit: Visit) -> Response:
            assert target is not None
            return await self._classify(visit, target, request.headers.get("content-type", ""))

        def refuse(error: RefusedError) -> Response:
            if error.reason == "no_model" and not isinstance(found_target, Target):
                return found_target
            return self._refusal(error, call.operation, found["api"])

        return await self._desk.serve(request, call, work, refuse)

    def _target(self, found: re.Match[str]) -> Target | Response:
        """What the path means, or the reply that says what in it is wrong."""
        try:
            project = uuid.UUID(found["project"])
        except ValueError:
            return _problem(400, ("BadRequestInvalidIds", "The project id is not a GUID."))
        if project not in PROJECTS:
            return _problem(404, ("NotFoundProject", "Project not found."))
        name, classifier = found["name"], PROJECTS[project]
        sizes: dict[str, Size] = {classifier: self._size, f"{classifier}-128": 128, f"{classifier}-224": 224}
        if name not in sizes:
            return _problem(
                400, ("BadRequestInvalidPublishName", "No iteration is published under that name.")
            )
        model = Model(name, f"custom_vision/{name}", classifier, sizes[name], PRICE_MICROS)
        return Target(project, model, found["kind"].lower() == "url")

    async def _classify(self, visit: Visit, target: Target, content_type: str) -> Response:
        """One image in, all tags out, best first."""
        kind = content_type.partition(";")[0].strip().lower()
        image: bytes | None = visit.body
        if target.url:
            return _problem(400, PROBLEMS["url"])
        if kind == "multipart/form-data":
            image = part(visit.body, content_type, "imageData")
        elif kind != "application/octet-stream":
            return _problem(
                415, ("UnsupportedMediaType", "Send application/octet-stream or multipart/form-data.")
            )
        if image is None:
            return _problem(400, PROBLEMS["argument"])
        data = image
        generation = self._desk.box.generation(target.model.line)
        (outcome,) = await self._desk.score(visit, [lambda: data], LIMITS, generation)
        if isinstance(outcome, Scored):
            return json_reply(_answer(outcome, target, generation, visit))
        return _failure(outcome)

    def _refusal(self, error: RefusedError, operation: str, api: str) -> Response:
        if error.reason == "throttled":
            return self._throttled(operation, api)
        if error.reason == "server_error":
            return _server_error(error.pick)
        if error.reason == "quota":
            message = "Out of call volume quota. Quota will be replenished in 12 days."
            return _gateway(403, message)
        if error.reason == "too_large":
            return _gateway(413, "Request entity too large.")
        return _gateway(
            401,
            "Access denied due to invalid subscription key. Make sure you are subscribed to an API you are "
            "trying to call and provide the right key.",
        )

    def _throttled(self, operation: str, api: str) -> Response:
        """The gateway's 429; by default with `Retry-After: 1`."""
        style = self._desk.box.faults.retry_after_style or "seconds"
        wait = "" if style == "none" else "Please retry after 1 second. "
        if style == "huge":
            wait = "Try again in 86400 seconds. "
        message = (
            f"Requests to the {operation} Operation under Custom Vision Prediction API {api[1:]} have "
            f"exceeded rate limit of your current CustomVision.Prediction S0 pricing tier. {wait}"
            "To increase your rate limit switch to a paid tier."
        )
        return json_reply({"error": {"code": "429", "message": message}}, 429, retry_headers(style))


@cache
def _tags(project: uuid.UUID, classifier: Name) -> list[tuple[str, str]]:
    """(tagId, tagName) of all tags, in the order of the classifier's labels."""
    return [(str(uuid.uuid5(project, label)), label) for label in labels_of(classifier)]


def _answer(outcome: Scored, target: Target, generation: int, visit: Visit) -> dict[str, object]:
    values, tags = outcome.values.tolist(), _tags(target.project, target.model.classifier)
    predictions = [
        {
            "probability": values[label],
            "tagId": tags[label][0],
            "tagName": tags[label][1],
            "tagType": "Regular",
        }
        for label in ranked(outcome.values, visit.luck.faults)
    ]
    return {
        "id": str(uuid.uuid4()),
        "project": str(target.project),
        "iteration": target.iteration(generation),
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
        "predictions": predictions,
    }


def _failure(outcome: Failed) -> Response:
    if outcome.bad is None:
        return _problem(
            503, ("ErrorPredictionServiceUnavailable", "The prediction service is not available.")
        )
    return _problem(400, PROBLEMS[outcome.bad.fault])


def _server_error(pick: int) -> Response:
    if pick == 0:
        return html_reply(502)
    problems = [(500, "ErrorPrediction"), (503, "ErrorPredictionServiceUnavailable")]
    status, code = problems[pick - 1]
    return _problem(status, (code, "The request failed. Please try again."))


def _problem(status: int, problem: Problem) -> Response:
    """The service's own error body."""
    return json_reply({"code": problem[0], "message": problem[1]}, status)


def _gateway(status: int, message: str) -> Response:
    """The error body of the gateway in front of the service."""
    return json_reply({"statusCode": status, "message": message}, status)
