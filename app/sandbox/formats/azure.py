"""Azure AI Content Safety, /contentsafety/image:analyze: severities from the moderation classifier."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.desk import Visit
from app.sandbox.formats.base import Codes, Fetch, Format, WrongError, by_label, document, from_base64, inside
from app.sandbox.images import Limits
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome

#: Which of the classifier's labels plays which category, and where its severities 2, 4 and 6 begin.
_PARTS = {"Hate": "hentai", "SelfHarm": "sexy", "Sexual": "porn", "Violence": "drawing"}
_BOUNDS = (0.1, 0.4, 0.75)


class ContentSafety(Format):
    line = "azure_content_safety"
    rps = 100.0
    price_micros = 750
    limits = Limits(("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"), 4_194_304, 7200 * 7200, 7200, 1e9)
    codes: ClassVar[Codes] = {
        "no_key": (401, "401"), "wrong_key": (401, "401"), "throttled": (429, "TooManyRequests"),
        "quota": (403, "403"), "server_error": (500, "InternalError"),
    }  # fmt: skip

    def routes(self) -> list[Route]:
        return [Route("/contentsafety/image:analyze", self._analyze, methods=["POST"])]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        error = {"code": code, "message": message, "details": []}
        return json_reply({"error": error}, status, {"x-ms-error-code": code, **(headers or {})})

    async def _analyze(self, request: Request) -> Response:
        asked: dict[str, Any] = {}

        def read(visit: Visit) -> list[Fetch]:
            asked.update(document(visit.body, "InvalidRequestBody"))
            if not set(asked.get("categories") or _PARTS) <= set(_PARTS):
                raise WrongError("InvalidRequestBody", "The field categories is not valid.")
            return [from_base64(inside(asked, "image", "content"))]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            (outcome,) = outcomes
            if isinstance(outcome, Failed):
                return self.failed(outcome, "InvalidImageFormat")
            scores = by_label(outcome, "moderation")
            rows = [
                {"category": name, "severity": 2 * sum(scores[_PARTS[name]] > bound for bound in _BOUNDS)}
                for name in asked.get("categories") or _PARTS
            ]
            return json_reply({"categoriesAnalysis": rows})

        key = request.headers.get("ocp-apim-subscription-key")
        return await self.run(request, key, self.model("moderation"), read, answer)
