"""AWS Rekognition, POST /: moderation, labels (ImageNet), custom labels (traffic signs). Signatures are not
checked, keys are."""

import re
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import Name, labels_of
from app.sandbox.desk import Visit
from app.sandbox.formats.base import Codes, Fetch, Format, document, from_base64, inside
from app.sandbox.images import Limits
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome, ranked

#: operation -> (classifier, member of the answer, member of the version, least confidence)
_OPERATIONS: dict[str, tuple[Name, str, str, float]] = {
    "DetectModerationLabels": ("moderation", "ModerationLabels", "ModerationModelVersion", 50.0),
    "DetectLabels": ("imagenet", "Labels", "LabelModelVersion", 55.0),
    "DetectCustomLabels": ("traffic-signs", "CustomLabels", "", 50.0),
}
_CREDENTIAL = re.compile(r"AWS4-HMAC-SHA256 .*Credential=([^/,\s]+)/")


class Rekognition(Format):
    line = "rekognition"
    limits = Limits(("JPEG", "PNG"), 5_242_880, 10_000 * 10_000, 10_000, 1e9)
    codes: ClassVar[Codes] = {
        "no_key": (400, "MissingAuthenticationTokenException"),
        "wrong_key": (400, "UnrecognizedClientException"),
        "throttled": (400, "ThrottlingException"),
        "quota": (400, "LimitExceededException"),
        "too_large": (400, "ImageTooLargeException"),
        "server_error": (500, "InternalServerError"),
        "no_model": (400, "InvalidParameterException"),
    }  # fmt: skip

    def routes(self) -> list[Route]:
        return [
            Route(path, self._detect, methods=["POST"]) for path in ("/", "/rekognition", "/rekognition/")
        ]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        return json_reply({"__type": code, "message": message}, status, headers)

    async def _detect(self, request: Request) -> Response:
        found = _CREDENTIAL.match(request.headers.get("authorization", ""))
        target = request.headers.get("x-amz-target", "").rpartition(".")[2]
        name, member, version_member, least = _OPERATIONS.get(target, ("moderation", "", "", 0.0))
        asked: dict[str, Any] = {}

        def read(visit: Visit) -> list[Fetch]:
            asked.update(document(visit.body, "InvalidParameterException"))
            return [from_base64(inside(asked, "Image", "Bytes"))]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            (outcome,) = outcomes
            if isinstance(outcome, Failed):
                large = outcome.bad is not None and outcome.bad.fault in ("bytes", "dimensions")
                return self.failed(
                    outcome, "ImageTooLargeException" if large else "InvalidImageFormatException"
                )
            percent = (outcome.values * 100).tolist()
            minimum = asked.get("MinConfidence", least)
            most = asked.get("MaxLabels") or asked.get("MaxResults")
            rows = [j for j in ranked(outcome.values, visit.luck.faults) if percent[j] >= minimum][:most]
            labels = labels_of(visit.model.classifier)
            content: dict[str, Any] = {member: [_row(member, labels[j], percent[j]) for j in rows]}
            return json_reply(content | ({version_member: f"7.{generation}"} if version_member else {}))

        model = self.model(name) if member else None
        return await self.run(request, found[1] if found else None, model, read, answer)


def _row(member: str, name: str, confidence: float) -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {
        "ModerationLabels": {"ParentName": "", "TaxonomyLevel": 1},
        "Labels": {"Instances": [], "Parents": [], "Aliases": [], "Categories": []},
    }
    return {"Name": name, "Confidence": confidence, **more.get(member, {})}
