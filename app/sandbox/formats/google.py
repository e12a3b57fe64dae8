"""Google Cloud Vision, /v1/images:annotate: safe search (moderation classifier) and labels (ImageNet)."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import labels_of
from app.sandbox.desk import Visit
from app.sandbox.formats.base import (
    Codes,
    Fetch,
    Format,
    WrongError,
    bearer,
    by_label,
    document,
    from_base64,
    inside,
)
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome, Scored, ranked

_LEVELS = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")
_BOUNDS = (0.05, 0.2, 0.5, 0.8)
#: Which of the moderation classifier's labels plays which category.
_PARTS = {"adult": "porn", "spoof": "drawing", "medical": "neutral", "violence": "hentai", "racy": "sexy"}
_SAFE = ("SAFE_SEARCH_DETECTION", 6)
_LABEL = ("LABEL_DETECTION", 4)


class Vision(Format):
    line = "google_vision"
    rps = 30.0
    price_micros = 1500
    codes: ClassVar[Codes] = {
        "no_key": (403, "PERMISSION_DENIED"), "wrong_key": (400, "INVALID_ARGUMENT"),
        "throttled": (429, "RESOURCE_EXHAUSTED"), "quota": (429, "RESOURCE_EXHAUSTED"),
        "server_error": (500, "INTERNAL"),
    }  # fmt: skip

    def routes(self) -> list[Route]:
        return [Route("/v1/images:annotate", self._annotate, methods=["POST"])]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        if code == "INVALID_ARGUMENT" and message == "wrong key":
            message = "API key not valid. Please pass a valid API key."
        if code == "RESOURCE_EXHAUSTED" and "quota" in message:
            message = "Quota exceeded for quota metric 'Requests' and limit 'Requests per day'."
        error = {"code": status, "message": message, "status": code, "details": []}
        return json_reply({"error": error}, status, headers)

    async def _annotate(self, request: Request) -> Response:
        key = request.headers.get("x-goog-api-key") or request.query_params.get("key") or bearer(request)
        asked: list[dict[str, Any]] = []
        body = await request.body()
        kinds = {inside(f, "type") for f in inside(_lenient(body), "requests", 0, "features") or []}
        safe = not kinds.isdisjoint(_SAFE)
        model = self.model("moderation" if safe or kinds.isdisjoint(_LABEL) else "imagenet")

        def read(visit: Visit) -> list[Fetch]:
            requests = document(visit.body, "INVALID_ARGUMENT").get("requests")
            if not isinstance(requests, list) or not 1 <= len(requests) <= 16:
                raise WrongError("INVALID_ARGUMENT", "1 to 16 images per request are allowed.")
            if kinds.isdisjoint((*_SAFE, *_LABEL)):
                raise WrongError("INVALID_ARGUMENT", "Only safe search and labels are detected here.")
            asked.extend(requests)
            return [from_base64(inside(one, "image", "content")) for one in requests]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            rows = [
                _response(visit, one, outcome, safe) for one, outcome in zip(asked, outcomes, strict=True)
            ]
            return json_reply({"responses": rows})

        return await self.run(request, key, model, read, answer)


def _lenient(body: bytes) -> object:
    try:
        return document(body)
    except WrongError:
        return None


def _response(visit: Visit, asked: object, outcome: Outcome, safe: bool) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        code = (14, "Please try again.") if outcome.bad is None else (3, "Bad image data.")
        return {"error": {"code": code[0], "message": code[1]}}
    if safe:
        return {"safeSearchAnnotation": _safe_search(outcome)}
    labels = labels_of("imagenet")
    most = int(inside(asked, "features", 0, "maxResults") or 10)
    rows = ranked(outcome.values, visit.luck.faults)[:most]
    scores = outcome.values.tolist()
    return {
        "labelAnnotations": [
            {"mid": f"/m/{j:05d}", "description": labels[j], "score": scores[j], "topicality": scores[j]}
            for j in rows
        ]
    }


def _safe_search(outcome: Scored) -> dict[str, str]:
    scores = by_label(outcome, "moderation")
    return {name: _LEVELS[sum(scores[label] > bound for bound in _BOUNDS)] for name, label in _PARTS.items()}
