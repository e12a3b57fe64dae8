"""OpenAI's image moderation, /v1/moderations: categories from the moderation classifier."""

import uuid
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
from app.sandbox.scoring import Failed, Outcome

#: Which of the classifier's labels plays which category of images; the other seven never judge one.
_PARTS = {
    "sexual": "porn", "violence": "hentai", "violence/graphic": "drawing", "self-harm": "sexy",
    "self-harm/intent": "neutral", "self-harm/instructions": "neutral",
}  # fmt: skip
_OTHERS = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "sexual/minors",
)  # fmt: skip


class Moderation(Format):
    line = "openai_moderation"
    rps = 20.0
    price_micros = 0
    codes: ClassVar[Codes] = {
        "no_key": (401, "invalid_api_key"), "wrong_key": (401, "invalid_api_key"),
        "throttled": (429, "rate_limit_exceeded"), "quota": (429, "insufficient_quota"),
        "server_error": (500, "server_error"),
    }  # fmt: skip

    def routes(self) -> list[Route]:
        return [Route("/v1/moderations", self._moderate, methods=["POST"])]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return json_reply({"error": error}, status, headers)

    async def _moderate(self, request: Request) -> Response:
        asked: dict[str, Any] = {}

        def read(visit: Visit) -> list[Fetch]:
            asked.update(document(visit.body))
            given = asked.get("input")
            images = (
                [item for item in given if inside(item, "type") == "image_url"]
                if isinstance(given, list)
                else []
            )
            if len(images) > 1:
                message = f"Number of images ({len(images)}) exceeds maximum of 1"
                raise WrongError("too_many_images", message)
            url = str(inside(images, 0, "image_url", "url") or "")
            head, comma, data = url.partition(";base64,")
            if not (comma and head.startswith("data:image/")):
                raise WrongError("invalid_image_format", "An image as a data URL is needed.")
            return [from_base64(data)]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            (outcome,) = outcomes
            if isinstance(outcome, Failed):
                return self.failed(outcome, "invalid_image_format")
            found = by_label(outcome, "moderation")
            scores = {name: found[label] for name, label in _PARTS.items()} | dict.fromkeys(_OTHERS, 0.0)
            flags = {name: score > 0.5 for name, score in scores.items()}
            result = {
                "flagged": any(flags.values()),
                "categories": flags,
                "category_scores": scores,
                "category_applied_input_types": {
                    name: ["image"] if name in _PARTS else [] for name in scores
                },
            }
            model = asked.get("model") or "omni-moderation-latest"
            return json_reply({"id": f"modr-{uuid.uuid4().hex}", "model": model, "results": [result]})

        return await self.run(request, bearer(request), self.model("moderation"), read, answer)
