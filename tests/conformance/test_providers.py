"""Every provider of the table meets the suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conformance.providers import SECRET, ProviderSuite, decoded, file_part

from app.contracts import Provider, WireRequest
from app.providers import PROVIDERS, make

EXAMPLES = Path(__file__).parents[2] / "examples" / "connections"
BASE = "https://provider.example/prefix/"


class TestClarifai(ProviderSuite):
    name = "clarifai"

    @pytest.fixture
    def provider(self) -> Provider:
        model = {"user_id": "clarifai", "app_id": "main", "model_id": "nsfw-recognition"}
        return make("clarifai", BASE, model, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        return [decoded(given["data"]["image"]["base64"]) for given in json.loads(request.body)["inputs"]]


class TestCustomVision(ProviderSuite):
    name = "custom_vision"

    @pytest.fixture
    def provider(self) -> Provider:
        model = {"project_id": "11111111-2222-3333-4444-555555555555", "published_name": "my model"}
        return make("custom_vision", BASE, model, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        return [request.body]


class TestHuggingFace(ProviderSuite):
    name = "huggingface"

    @pytest.fixture
    def provider(self) -> Provider:
        return make("huggingface", BASE, {"model": "owner/name", "revision": "abc"}, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        body = json.loads(request.body)
        assert body["parameters"] == {"top_k": 1000}
        return [decoded(body["inputs"])]


class TestOpenInference(ProviderSuite):
    name = "open_inference"
    positional = True

    @pytest.fixture
    def provider(self) -> Provider:
        model = {"model_name": "clf", "output_name": "probs", "labels": ["nsfw", "sfw"]}
        return make("open_inference", BASE, model, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        [tensor] = json.loads(request.body)["inputs"]
        assert (tensor["datatype"], tensor["shape"]) == ("BYTES", [len(tensor["data"])])
        return [decoded(text) for text in tensor["data"]]


class TestGoogleVision(ProviderSuite):
    name = "google_vision"
    positional = True

    @pytest.fixture
    def provider(self) -> Provider:
        return make("google_vision", BASE, {"feature": "safe_search"}, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        return [decoded(asked["image"]["content"]) for asked in json.loads(request.body)["requests"]]


class TestRekognition(ProviderSuite):
    name = "rekognition"
    credential = "nowhere"

    @pytest.fixture
    def provider(self) -> Provider:
        return make("rekognition", BASE, {"operation": "moderation"}, f"AKIDEXAMPLE:{SECRET}", {})

    def images(self, request: WireRequest) -> list[bytes]:
        assert request.headers["X-Amz-Target"] == "RekognitionService.DetectModerationLabels"
        assert "Credential=AKIDEXAMPLE/" in request.headers["Authorization"]
        body = json.loads(request.body)
        assert body["MinConfidence"] == 0
        return [decoded(body["Image"]["Bytes"])]


class TestAzureContentSafety(ProviderSuite):
    name = "azure_content_safety"

    @pytest.fixture
    def provider(self) -> Provider:
        return make("azure_content_safety", BASE, {}, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        return [decoded(json.loads(request.body)["image"]["content"])]


class TestOpenAIModeration(ProviderSuite):
    name = "openai_moderation"

    @pytest.fixture
    def provider(self) -> Provider:
        return make("openai_moderation", BASE, {}, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        [item] = json.loads(request.body)["input"]
        return [decoded(item["image_url"]["url"].removeprefix("data:image/png;base64,"))]


class TestSightengine(ProviderSuite):
    name = "sightengine"
    credential = "body"

    @pytest.fixture
    def provider(self) -> Provider:
        model = {"models": "nudity-2.1,gore-2.0", "api_user": "u1"}
        return make("sightengine", BASE, model, SECRET, {})

    def images(self, request: WireRequest) -> list[bytes]:
        return [file_part(request, "media")]


class TestImagga(ProviderSuite):
    name = "imagga"
    credential = "nowhere"  # in base64

    @pytest.fixture
    def provider(self) -> Provider:
        return make("imagga", BASE, {"categorizer_id": "nsfw_beta"}, f"acc_1:{SECRET}", {})

    def images(self, request: WireRequest) -> list[bytes]:
        return [file_part(request, "image")]


class Configured(ProviderSuite):
    """`http_json` with one of the worked configurations of `examples/connections`."""

    name = "http_json"

    @pytest.fixture
    def provider(self) -> Provider:
        example = json.loads((EXAMPLES / f"{self.folder.removeprefix('http_json/')}.json").read_text())
        return make("http_json", BASE, example["model"], SECRET, {})


class TestTorchServe(Configured):
    folder = "http_json/torchserve"

    def images(self, request: WireRequest) -> list[bytes]:
        assert request.url == f"{BASE}predictions/mobilenet"
        return [request.body]


class TestTfServing(Configured):
    folder = "http_json/tf-serving"
    positional = True

    def images(self, request: WireRequest) -> list[bytes]:
        body = json.loads(request.body)
        assert body["signature_name"] == "serving_default"
        return [decoded(given["b64"]) for given in body["instances"]]


class TestNudeNetClassifier(Configured):
    folder = "http_json/nudenet-classifier"

    def images(self, request: WireRequest) -> list[bytes]:
        return [decoded(json.loads(request.body)["data"]["q0"])]


class TestNudeNetDetector(Configured):
    folder = "http_json/nudenet-detector"

    def images(self, request: WireRequest) -> list[bytes]:
        return [file_part(request, "f1")]


class TestNsfwJs(Configured):
    folder = "http_json/nsfwjs"

    def images(self, request: WireRequest) -> list[bytes]:
        return [file_part(request, "image")]


class TestOpenNsfw(Configured):
    folder = "http_json/open-nsfw"

    def images(self, request: WireRequest) -> list[bytes]:
        return [file_part(request, "image")]


def suites(kind: type[ProviderSuite]) -> set[type[ProviderSuite]]:
    return {kind}.union(*(suites(below) for below in kind.__subclasses__()))


def test_every_provider_has_a_suite() -> None:
    found = {suite.name for suite in suites(ProviderSuite) if suite.__name__.startswith("Test")}
    assert found == set(PROVIDERS)


def test_every_worked_configuration_is_checked() -> None:
    kept = {f"http_json/{path.stem}" for path in EXAMPLES.glob("*.json")}
    assert kept == {suite.folder for suite in suites(Configured) if suite.folder}
