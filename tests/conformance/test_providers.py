"""Every provider of the table meets the suite."""

from __future__ import annotations

import json

import pytest
from conformance.providers import SECRET, ProviderSuite, decoded

from app.contracts import Provider, WireRequest
from app.providers import PROVIDERS, make

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


def test_every_provider_has_a_suite() -> None:
    assert {suite.name for suite in ProviderSuite.__subclasses__()} == set(PROVIDERS)
