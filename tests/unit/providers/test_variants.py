"""Answers as services word them on other days: members left out or added, whole numbers, ids for names,
errors in text or HTML. Written from the makers' own documentation, apart from the recordings."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app import errors
from app.contracts import Provider, WireReply
from app.providers import make

BASE = "https://provider.example"
SECRET = "AKIDEXAMPLE:a-secret-0123456789"
MODELS: dict[str, dict[str, Any]] = {
    "clarifai": {"model_id": "m"},
    "custom_vision": {"project_id": "p", "published_name": "n"},
    "google_vision": {},
    "rekognition": {},
    "azure_content_safety": {},
    "openai_moderation": {},
    "sightengine": {"api_user": "u"},
    "huggingface": {"model": "o/m"},
    "open_inference": {"model_name": "m", "labels": ["a", "b"]},
    "imagga": {},
}


def provider(name: str, **model: Any) -> Provider:
    return make(name, BASE, MODELS[name] | model, SECRET, {})


def wire(body: object, status: int = 200, **headers: str) -> WireReply:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return WireReply(status, headers, content)


A, B = {"name": "a", "value": 1}, {"name": "b", "value": 0}

GOOD: dict[str, tuple[str, dict[str, Any], object, dict[str, float]]] = {
    "clarifai without ids, status and version": (
        "clarifai", {}, {"outputs": [{"data": {"concepts": [A, B]}}]}, {"a": 1.0, "b": 0.0}
    ),
    "clarifai with ids for names": (
        "clarifai", {},
        {"status": {"code": 10000}, "outputs": [
            {"data": {"concepts": [{"id": "a", "value": 0.25}], "regions": []}, "new": 1}
        ]},
        {"a": 0.25},
    ),
    "clarifai with the code as text": (
        "clarifai", {},
        {"status": {"code": "SUCCESS"},
         "outputs": [{"status": {"code": "10000"}, "data": {"concepts": [A]}, "model": None}]},
        {"a": 1.0},
    ),
    "custom vision without tagId, id and iteration": (
        "custom_vision", {}, {"predictions": [{"probability": 1, "tagName": "a"}]}, {"a": 1.0}
    ),
    "custom vision in capitals, as older versions": (
        "custom_vision", {},
        {"Id": "x", "Iteration": "i", "Predictions": [{"Probability": 0.5, "TagId": "t", "Tag": "a"}]},
        {"a": 0.5},
    ),
    "custom vision with a detector's box and a null": (
        "custom_vision", {},
        {"predictions": [{"probability": 0.5, "tagName": "a", "tagId": None, "boundingBox": None}]},
        {"a": 0.5},
    ),
    "google with numbers for likelihoods, and members it has added": (
        "google_vision", {},
        {"responses": [{"safeSearchAnnotation": {"adult": 5, "racy": 1, "new": "X"}}]},
        {"adult": 5.0, "racy": 1.0},
    ),
    "google labels without mid and topicality": (
        "google_vision", {"feature": "labels"},
        {"responses": [{"labelAnnotations": [{"description": "Dog", "score": 1}]}]}, {"Dog": 1.0},
    ),
    "google has found no label": (
        "google_vision", {"feature": "labels"}, {"responses": [{}]}, {}
    ),
    "rekognition has found nothing": (
        "rekognition", {}, {"ModerationLabels": [], "ModerationModelVersion": "7.0"}, {}
    ),
    "rekognition without version, with whole numbers": (
        "rekognition", {}, {"ModerationLabels": [{"Confidence": 99, "Name": "Explicit"}]}, {"Explicit": 99.0}
    ),
    "content safety with blocklists beside": (
        "azure_content_safety", {},
        {"blocklistsMatch": [], "categoriesAnalysis": [{"category": "Hate", "severity": 0, "x": None}]},
        {"Hate": 0.0},
    ),
    "openai with only some categories, and new ones": (
        "openai_moderation", {},
        {"results": [{"category_scores": {"sexual": 0, "violence": 1, "harassment": 0.5, "brand/new": 0.1}}]},
        {"sexual": 0.0, "violence": 1.0},
    ),
    "sightengine without a request": (
        "sightengine", {}, {"status": "success", "nudity": {"none": 1, "safe": True}}, {"nudity.none": 1.0}
    ),
    "hugging face in a list of a list": (
        "huggingface", {}, [[{"label": "LABEL_0", "score": 1, "index": 0}]], {"LABEL_0": 1.0}
    ),
    "open inference nested, with whole numbers and no names": (
        "open_inference", {}, {"outputs": [{"data": [[0, 1]]}]}, {"a": 0.0, "b": 1.0}
    ),
    "imagga without a status": (
        "imagga", {}, {"result": {"categories": [{"confidence": 5, "name": {"en": "x"}}]}}, {"x": 5.0}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_answers(case: str) -> None:
    name, model, body, expected = GOOD[case]
    reply = provider(name, **model).reply(wire(body), 1)
    assert reply.outcomes == (expected,)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, "Bad Request", errors.ConfigError),
        (401, "Unauthorized", errors.KeyRefused),
        (403, "<html><body>Forbidden</body></html>", errors.KeyRefused),
        (404, "<!DOCTYPE html><h1>Not Found</h1>", errors.ConfigError),
        (413, "Request Entity Too Large", errors.Rejected),
        (429, "Too Many Requests. Please wait 7 seconds.", errors.Throttled),
        (429, "", errors.Throttled),
        (500, "upstream connect error", errors.Unavailable),
        (503, '"Service Unavailable"', errors.Unavailable),
        (504, "<html>Gateway Time-out</html>", errors.Unavailable),
        (202, "", errors.ReplyInvalid),
        (204, "", errors.ReplyInvalid),
        (301, "Moved", errors.ConfigError),
        (529, "Site is overloaded", errors.Unavailable),
    ],
)
def test_errors_in_text(name: str, status: int, body: str, kind: type[errors.ProviderError]) -> None:
    with pytest.raises(errors.ProviderError) as caught:
        provider(name).reply(wire(body, status), 1)
    assert type(caught.value) is kind
    assert caught.value.http_status == status
    assert caught.value.hint or not isinstance(caught.value, errors.ConfigError)
    if "wait 7" in body:
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("name", "status", "body", "kind"),
    [
        ("clarifai", 401, {"status": {"code": "CONN_KEY_NOT_FOUND"}}, errors.KeyRefused),
        ("clarifai", 200, {"status": {"code": 11005, "description": "Slow"}}, errors.Throttled),
        ("custom_vision", 429, {"error": {"code": 429, "message": "wait"}}, errors.Throttled),
        ("custom_vision", 404, {"Code": "NotFoundProject", "Message": "m"}, errors.ConfigError),
        ("google_vision", 429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, errors.Throttled),
        (
            "google_vision",
            400,
            [{"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT"}}],
            errors.KeyRefused,
        ),
        (
            "rekognition",
            400,
            {"__type": "com.amazonaws#ThrottlingException", "Message": "Rate"},
            errors.Throttled,
        ),
        (
            "openai_moderation",
            429,
            {"error": {"code": None, "type": "insufficient_quota", "message": "m"}},
            errors.QuotaExhausted,
        ),
        (
            "openai_moderation",
            401,
            {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}},
            errors.KeyRefused,
        ),
        (
            "huggingface",
            503,
            {"error": ["Model o/m is currently loading"], "estimated_time": 3},
            errors.Throttled,
        ),
        (
            "huggingface",
            402,
            {"error": "You have exceeded your monthly included credits"},
            errors.QuotaExhausted,
        ),
        ("open_inference", 400, {"error": {"message": "odd"}}, errors.ConfigError),
        (
            "azure_content_safety",
            429,
            {"error": {"code": "429", "message": "Retry after 1 second"}},
            errors.Throttled,
        ),
    ],
)
def test_errors_in_json(name: str, status: int, body: object, kind: type[errors.ProviderError]) -> None:
    with pytest.raises(errors.ProviderError) as caught:
        provider(name).reply(wire(body, status), 1)
    assert type(caught.value) is kind
