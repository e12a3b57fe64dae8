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
