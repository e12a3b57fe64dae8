"""Hugging Face's image classification: /hf/models/{classifier}."""

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.classifiers import labels_of
from app.sandbox.desk import Visit
from app.sandbox.formats.base import Fetch, Format, bearer, document, from_base64, inside
from app.sandbox.replies import json_reply
from app.sandbox.scoring import Failed, Outcome, ranked

_DEFAULT_TOP_K = 5


class HuggingFace(Format):
    line = "huggingface"
    price_micros = 100

    def routes(self) -> list[Route]:
        return [Route("/hf/models/{name}", self._classify, methods=["POST"])]

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
        return json_reply({"error": message}, status, headers)

    async def _classify(self, request: Request) -> Response:
        top_k = _DEFAULT_TOP_K
        function = "softmax"

        def read(visit: Visit) -> list[Fetch]:
            nonlocal top_k, function
            if visit.body.lstrip()[:1] != b"{":
                return [lambda: visit.body]
            body = document(visit.body)
            top_k = int(inside(body, "parameters", "top_k") or _DEFAULT_TOP_K)
            function = str(inside(body, "parameters", "function_to_apply") or "softmax")
            return [from_base64(body.get("inputs"))]

        def answer(visit: Visit, outcomes: list[Outcome], generation: int) -> Response:
            (outcome,) = outcomes
            if isinstance(outcome, Failed):
                if outcome.bad is None:
                    return self.failed(outcome, "")
                return self.error(400, "", "cannot identify image file")
            labels = labels_of(visit.model.classifier)
            values = outcome.values
            if function == "none":
                values = np.log(np.maximum(values, 1e-30))
            rows = ranked(outcome.values, visit.luck.faults)[:top_k]
            return json_reply([{"label": labels[j], "score": float(values[j])} for j in rows])

        return await self.run(request, bearer(request), self.model(request.path_params["name"]), read, answer)
