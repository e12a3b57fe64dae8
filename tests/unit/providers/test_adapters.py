"""What is particular to one adapter: urls, options, settings that are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.contracts import WireReply
from app.errors import BadRequest, ReplyInvalid
from app.providers import PROVIDERS, make, wire

CLARIFAI = {"user_id": "me", "app_id": "my app", "model_id": "m/1", "version_id": "v"}


def test_clarifai_urls() -> None:
    long = make("clarifai", "https://api.example/", CLARIFAI, "k", {})
    assert long.request([b"x"]).url == (
        "https://api.example/v2/users/me/apps/my%20app/models/m%2F1/versions/v/outputs"
    )
    short = make("clarifai", "https://api.example", {"model_id": "m"}, "k", {})
    assert short.request([b"x"]).url == "https://api.example/v2/models/m/outputs"


def test_clarifai_options_reach_the_wire_and_the_cache_key() -> None:
    plain = make("clarifai", "https://a.example", {"model_id": "m"}, "k", {})
    options = {"max_concepts": 5, "min_value": 0.1, "select_concepts": ["a"], "language": "de"}
    asked = make("clarifai", "https://a.example", {"model_id": "m"}, "k", options)
    config = json.loads(asked.request([b"x"]).body)["model"]["output_info"]["output_config"]
    assert config == {
        "max_concepts": 5,
        "min_value": 0.1,
        "select_concepts": [{"name": "a"}],
        "language": "de",
    }
    assert json.loads(plain.request([b"x"]).body)["model"]["output_info"]["output_config"] == {
        "max_concepts": 200
    }
    assert plain.info.cache_scope != asked.info.cache_scope


def test_clarifai_score_kind_follows_the_model() -> None:
    kinds = [
        make("clarifai", "https://a.example", {"model_id": model}, "k", options).info.score_kind
        for model, options in (
            ("nsfw-recognition", {}),
            ("general-image-recognition", {}),
            ("general-image-recognition", {"score_kind": "probability"}),
        )
    ]
    assert kinds == ["probability", "independent", "probability"]


def test_clarifai_version_falls_back_to_the_one_asked_for() -> None:
    body = {"outputs": [{"data": {"concepts": [{"name": "a", "value": 1}]}}]}
    reply = WireReply(200, {}, json.dumps(body).encode())
    assert make("clarifai", "https://a.example", CLARIFAI, "k", {}).reply(reply, 1).version == "v"


def test_custom_vision_urls() -> None:
    model = {"project_id": "p", "published_name": "n 1"}
    urls = [
        make("custom_vision", "https://a.example/", model, "k", options).request([b"x"]).url
        for options in ({}, {"store": True, "api_version": "v3.0"})
    ]
    prefix = "https://a.example/customvision"
    assert urls == [
        f"{prefix}/v3.1/Prediction/p/classify/iterations/n%201/image/nostore",
        f"{prefix}/v3.0/Prediction/p/classify/iterations/n%201/image",
    ]


@pytest.mark.parametrize(
    ("provider", "model", "options", "param"),
    [
        ("nobody", {}, {}, "provider"),
        ("clarifai", {}, {}, "model.model_id"),
        ("clarifai", {"model_id": "m", "modle": 1}, {}, "model.modle"),
        ("clarifai", {"model_id": "m"}, {"max_concepts": 0}, "options.max_concepts"),
        ("custom_vision", {"project_id": "p"}, {}, "model.published_name"),
        (
            "custom_vision",
            {"project_id": "p", "published_name": "n"},
            {"api_version": "v9"},
            "options.api_version",
        ),
    ],
)
def test_wrong_settings_name_their_field(provider: str, model: dict, options: dict, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        make(provider, "https://a.example", model, "k", options)
    assert refused.value.param == param


def test_secrets_that_cannot_be_a_header_are_refused() -> None:
    with pytest.raises(BadRequest) as refused:
        make("clarifai", "https://a.example", {"model_id": "m"}, "k\r\nX-Evil: 1", {})
    assert refused.value.param == "secret"
    assert "Evil" not in str(refused.value)


def test_defaults_and_schemas() -> None:
    for kind in PROVIDERS.values():
        assert kind.defaults.price.micros >= 0
        assert re.fullmatch(r"20\d\d-\d\d", kind.defaults.as_of)
        for settings in (kind.Model, kind.Options):
            assert settings.model_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "-3"}, "", 0.0),
        ({"retry-after": "soon"}, "Please retry after 1 second.", 1.0),
        ({"retry-after": "Fri, 20 Nov 2026 10:01:00 GMT", "date": "Fri, 20 Nov 2026 10:00:00 GMT"}, "", 60.0),
        ({}, "Try again in 86400 seconds", 86_400.0),
        ({}, "retry in 2 minutes", 120.0),
        ({}, "exceeded limit of 15 requests per second", None),
    ],
)
def test_waits(headers: dict[str, str], message: str, seconds: float | None) -> None:
    assert wire.retry_after(WireReply(429, headers, b""), message) == seconds


@pytest.mark.parametrize("value", [None, True, "x", "nan", float("inf"), -0.1, 1.1, [], "1e999"])
def test_scores_that_are_none(value: object) -> None:
    with pytest.raises(ReplyInvalid):
        wire.score(value, "probability")


def test_scores_of_other_kinds_keep_their_range() -> None:
    assert [wire.score(v, "logit") for v in (-3, "12.5")] == [-3.0, 12.5]


def test_every_provider_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "providers.md").read_text()
    assert [name for name in PROVIDERS if f"| `{name}` |" not in page] == []
