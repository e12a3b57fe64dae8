"""Imagga v2, /v2/categories/{categorizer}: percents of a classifier's labels. The api secret is the key.

`nsfw_beta` is the nsfw classifier under that categorizer's names; any classifier also goes by its own.
"""

import binascii
from base64 import b64decode
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import labels_of
from app.sandbox.desk import Visit
from app.sandbox.formats.base import Codes, Fetch, Format, WrongError, from_base64
from app.sandbox.multipart import part
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome, ranked

_NSFW_BETA = {"sfw": "safe", "nsfw": "nsfw"}
_MONTH = "You have reached your monthly limits for this subscription."


class Imagga(Format):
    line = "imagga"
    rps = 10.0
    price_micros = 1130
    codes: ClassVar[Codes] = {"quota": (403, "quota"), "no_model": (404, "no_model")}

    def routes(self) -> list[Route]:
        return [Route("/v2/categories/{name}", self._categorize, methods=["POST"])]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        words = {
            "no_key": "Basic Auth: credentials are missing",
            "wrong_key": "Basic Auth: invalid credentials",
            "quota": _MONTH,
            "no_model": "Categorizer not found",
        }
        said = {"text": words.get(code, message), "type": "error"}
        return json_reply({"result": {}, "status": said}, status, headers)

    async def _categorize(self, request: Request) -> Response:
        name = request.path_params["name"]
        language = request.query_params.get("language", "en")
        kind = request.headers.get("content-type", "")

        def read(visit: Visit) -> list[Fetch]:
            image, text = (part(visit.body, kind, field) for field in ("image", "image_base64"))
            if image is not None:
                return [lambda: image]
            if text is None:
                raise WrongError(
                    "argument", "No image was sent: image, image_base64, image_url or an upload id."
                )
            return [from_base64(text.decode("latin-1"))]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            (outcome,) = outcomes
            if isinstance(outcome, Failed):
                if outcome.bad is None:
                    return self.failed(outcome, "")
                return self.error(400, "", f"The image could not be read: {outcome.bad.detail}")
            names = [_NSFW_BETA.get(label, label) for label in labels_of(visit.model.classifier)]
            rows = [
                {"confidence": float(outcome.values[j]) * 100, "name": {language: names[j]}}
                for j in ranked(outcome.values, visit.luck.faults)
            ]
            return json_reply({"result": {"categories": rows}, "status": {"text": "", "type": "success"}})

        model = self.model("nsfw" if name == "nsfw_beta" else name)
        return await self.run(request, _secret(request), model, read, answer)


def _secret(request: Request) -> str:
    """The password of Basic authorization."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    try:
        given = b64decode(text, validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return given.partition(":")[2]
