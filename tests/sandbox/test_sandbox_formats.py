"""The smaller formats, through the product's own adapters: the classifiers' scores come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from sandbox_client import encoded, picture

from app import errors
from app.contracts import Provider, Reply, WireReply
from app.providers import PROVIDERS, make
from app.sandbox.classifiers import Name, labels_of, load
from app.sandbox.formats import KINDS

IMAGE = picture(4)
ARN = "arn:aws:rekognition:us-east-1:111122223333:project/p/version/v/1700000000000"


def truth(name: Name) -> dict[str, float]:
    return dict(zip(labels_of(name), load(name, 128).scores(IMAGE[None])[0].tolist(), strict=True))


def ask(provider: Provider, http: httpx.Client, *images: bytes) -> Reply:
    request = provider.request(images or [encoded(IMAGE)])
    response = http.request(request.method, request.url, headers=dict(request.headers), content=request.body)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return provider.reply(WireReply(response.status_code, headers, response.content), max(1, len(images)))


#: provider -> (model, options, path below the sandbox, secret around the key, classifier)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str, Name]] = {
    "huggingface": ({"model": "moderation"}, {}, "/hf", "{}", "moderation"),
    "huggingface raw": ({"model": "moderation"}, {"top_k": None}, "/hf", "{}", "moderation"),
    "open_inference": ({"model_name": "moderation"}, {}, "/oip", "{}", "moderation"),
    "open_inference binary": (
        {"model_name": "moderation"},
        {"encoding": "binary"},
        "/oip",
        "{}",
        "moderation",
    ),
    "open_inference uint8": ({"model_name": "moderation"}, {"encoding": "uint8"}, "/oip", "{}", "moderation"),
    "google_vision": ({"feature": "labels", "max_results": 1000}, {}, "", "{}", "imagenet"),
    "rekognition": ({"operation": "labels"}, {}, "", "{}:word", "imagenet"),
    "imagga": ({"categorizer_id": "moderation"}, {}, "", "acc_1:{}", "moderation"),
    "rekognition custom": (
        {"operation": "custom_labels", "project_version_arn": ARN},
        {},
        "",
        "{}:w",
        "traffic-signs",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_arrive(base_url: str, case: str) -> None:
    model, options, path, secret, name = CASES[case]
    if case.startswith("open_inference"):
        model = {**model, "labels": labels_of(name)}
    provider = make(case.split()[0], base_url + path, model, secret.format(f"sandbox-{len(case)}"), options)
    with httpx.Client() as http:
        [outcome] = ask(provider, http).outcomes
    assert isinstance(outcome, Mapping), outcome
    unit = 100 if provider.info.score_kind == "percent" else 1
    expected = truth(name)
    assert set(outcome) <= set(expected)
    assert len(outcome) >= len(set(expected)) * 0.99
    for label, score in outcome.items():
        assert score == pytest.approx(expected[label] * unit, rel=1e-6, abs=1e-9)


def test_ordinal_scores(base_url: str) -> None:
    expected = truth("moderation")
    with httpx.Client() as http:
        safe = make("google_vision", base_url, {"feature": "safe_search"}, "sandbox-g", {})
        [adult] = ask(safe, http).outcomes
        content = make("azure_content_safety", base_url, {}, "sandbox-c", {})
        [severe] = ask(content, http).outcomes
    assert isinstance(adult, Mapping)
    assert isinstance(severe, Mapping)
    assert adult["medical"] == 1 + sum(expected["neutral"] > bound for bound in (0.05, 0.2, 0.5, 0.8))
    assert severe["Sexual"] == 2 * sum(expected["porn"] > bound for bound in (0.1, 0.4, 0.75))


def test_openai_and_sightengine(base_url: str) -> None:
    expected = truth("moderation")
    with httpx.Client() as http:
        [openai] = ask(make("openai_moderation", base_url, {}, "sandbox-o", {}), http).outcomes
        sight = make("sightengine", base_url, {"api_user": "u"}, "sandbox-s", {})
        [nudity] = ask(sight, http).outcomes
    assert isinstance(openai, Mapping)
    assert isinstance(nudity, Mapping)
    assert len(openai) == 6
    assert openai["sexual"] == expected["porn"]
    assert nudity["nudity.sexual_activity"] == expected["porn"]


MODELS: dict[str, tuple[dict[str, Any], str, str]] = {
    "huggingface": ({"model": "moderation"}, "/hf", "{}"),
    "open_inference": ({"model_name": "moderation"}, "/oip", "{}"),
    "google_vision": ({}, "", "{}"),
    "rekognition": ({}, "", "{}:word"),
    "azure_content_safety": ({}, "", "{}"),
    "openai_moderation": ({}, "", "{}"),
    "sightengine": ({"api_user": "u"}, "", "{}"),
    "imagga": ({}, "", "acc_1:{}"),
}


def test_every_format_is_one_of_a_provider() -> None:
    assert set(MODELS) == {kind.line for kind in KINDS} <= set(PROVIDERS)


def test_imagga_nsfw(base_url: str) -> None:
    """The categorizer's own names, and the language that was asked for."""
    with httpx.Client() as http:
        [found] = ask(make("imagga", base_url, {}, "acc_1:sandbox-i", {"language": "de"}), http).outcomes
    assert found == pytest.approx({"safe": 100 * truth("nsfw")["sfw"], "nsfw": 100 * truth("nsfw")["nsfw"]})


def twice(provider: Provider, http: httpx.Client) -> None:
    ask(provider, http)
    ask(provider, http)


@pytest.mark.parametrize("name", MODELS)
def test_refusals_are_understood(base_url: str, name: str) -> None:
    model, path, secret = MODELS[name]
    with httpx.Client(base_url=base_url) as http:
        http.delete("/faults")
        good = make(name, base_url + path, model, secret.format("sandbox-refusals"), {})
        with pytest.raises(errors.KeyRefused):
            ask(make(name, base_url + path, model, secret.format("stranger"), {}), http)
        for switches, kind in (
            ({"rate_limit_rps": 0.0001}, errors.Throttled),
            ({"rate_limit_rps": None, "monthly_quota": 0}, errors.QuotaExhausted),
            ({"monthly_quota": None, "p_5xx": 1}, errors.Unavailable),
        ):
            http.post("/faults", json=switches).raise_for_status()
            with pytest.raises(kind):
                twice(good, http)
        http.delete("/faults")
        junk = np.random.default_rng(1).bytes(200)
        try:
            [outcome] = ask(good, http, junk).outcomes
        except errors.ProviderError as error:
            outcome = error
        expected = errors.ConfigError if name == "open_inference" else errors.Rejected
        assert isinstance(outcome, expected), outcome
