"""Sightengine, /1.0/check.json: nudity-2.1 from the moderation classifier. The api_secret is the key."""

import time
import uuid
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.desk import Visit
from app.sandbox.formats.base import Codes, Fetch, Format, WrongError, by_label
from app.sandbox.multipart import part
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome

#: Which of the classifier's labels plays which score.
_PARTS = {
    "sexual_activity": "porn", "sexual_display": "hentai", "erotica": "drawing", "very_suggestive": "sexy",
    "none": "neutral",
}  # fmt: skip


class Sightengine(Format):
    line = "sightengine"
    rps = 20.0
    price_micros = 2900
    codes: ClassVar[Codes] = {
        "no_key": (400, "argument_error"), "wrong_key": (400, "argument_error"),
        "throttled": (429, "rate_limit"),
        "quota": (429, "usage_limit"), "server_error": (500, "api_error"),
    }  # fmt: skip

    def routes(self) -> list[Route]:
        return [Route("/1.0/check.json", self._check, methods=["POST"])]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        if code == "argument_error" and message in ("no key", "wrong key"):
            message = "Incorrect API user or API secret"
        asked = {"id": f"req_{uuid.uuid4().hex}", "timestamp": time.time(), "operations": 0}
        error = {"type": code, "code": 1, "message": message}
        return json_reply({"status": "failure", "request": asked, "error": error}, status, headers)

    async def _check(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        body = await request.body()
        secret = part(body, kind, "api_secret") or b""

        def read(visit: Visit) -> list[Fetch]:
            models = (part(body, kind, "models") or b"").decode("latin-1")
            if models != "nudity-2.1":
                raise WrongError("argument_error", f"Invalid model: {models}")
            image = part(body, kind, "media")
            if image is None:
                raise WrongError("media_error", "no media was sent")
            return [lambda: image]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            (outcome,) = outcomes
            if isinstance(outcome, Failed):
                return self.failed(outcome, "media_error")
            scores = by_label(outcome, "moderation")
            asked = {"id": f"req_{uuid.uuid4().hex}", "timestamp": time.time(), "operations": 1}
            nudity = {name: scores[label] for name, label in _PARTS.items()}
            media = {"id": f"med_{uuid.uuid4().hex}", "uri": "image.png"}
            return json_reply({"status": "success", "request": asked, "nudity": nudity, "media": media})

        return await self.run(
            request, secret.decode("latin-1").strip(), self.model("moderation"), read, answer
        )
