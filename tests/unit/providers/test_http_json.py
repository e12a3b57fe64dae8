"""The generic adapter: both spellings of its settings, templates, layouts, score kinds, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.contracts import Provider, WireReply
from app.errors import (
    BadRequest,
    ConfigError,
    KeyRefused,
    ProviderError,
    QuotaExhausted,
    Rejected,
    ReplyInvalid,
    Throttled,
    Unavailable,
)
from app.gateway.encoding import encode
from app.providers import make

BASE = "http://127.0.0.1:9"
ROWS = {"labels_path": "items[].name", "scores_path": "items[].value"}


def service(secret: str = "", **model: Any) -> Provider:
    return make("http_json", BASE, {**({} if "response" in model else ROWS), **model}, secret, {})


def answer(provider: Provider, body: object, status: int = 200, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider.reply(WireReply(status, headers, content), 1).outcomes[0]


# ---------------------------------------------------------------- asking


def test_both_spellings_send_the_same() -> None:
    short = service(
        "k",
        url="/v1",
        method="PUT",
        headers={"X-Key": "{secret}"},
        body={"image": "{image.b64}"},
        score_kind="percent",
    )
    long = service(
        "k",
        request={
            "url": f"{BASE}/v1",
            "method": "PUT",
            "headers": {"X-Key": "{secret}"},
            "body": {"kind": "json", "json": {"image": "{image.b64}"}},
        },
        response={**ROWS, "score": {"kind": "percent"}},
    )
    [a, b] = [provider.request([b"png"]) for provider in (short, long)]
    assert a == b
    assert (a.method, a.url, a.headers["X-Key"]) == ("PUT", f"{BASE}/v1", "k")
    assert json.loads(a.body) == {"image": "cG5n"}
    assert short.info.score_kind == long.info.score_kind == "percent"


@pytest.mark.parametrize(
    "body",
    [
        {"i": "{image.b64}"},
        {"i": "{image_b64}"},
        {"i": "{{ image_base64 }}"},
        '{"i": "{{image}}"}',
        {"i": "{b64}"},
    ],
)
def test_spellings_of_the_picture(body: object) -> None:
    assert json.loads(service(body=body).request([b"png"]).body) == {"i": "cG5n"}


def test_template_variables() -> None:
    provider = service(
        url="/{model}/v{version}",
        model="a b",
        version="2",
        query={"lang": "en"},
        body={
            "u": "{image.data_url}",
            "h": "{image.sha256}",
            "n": 1,
            "q": "{input.id}",
            "l": ["{model}", None],
        },
    )
    request = provider.request([b"png"])
    assert request.url == f"{BASE}/a%20b/v2?lang=en"
    body = json.loads(request.body)
    assert body["u"] == "data:image/png;base64,cG5n"
    assert len(body["h"]) == 64
    assert (body["n"], body["q"], body["l"]) == (1, "q0", ["a b", None])


def test_a_batch_repeats_one_element() -> None:
    provider = service(
        body={"inputs": [{"id": "{input.id}", "b": "{image.b64}"}], "top": 5},
        max_batch=8,
        repeat_path="inputs",
        items_path="out",
        item_id_path="id",
    )
    assert provider.info.max_batch == 8
    body = json.loads(provider.request([b"png", b"gnp"]).body)
    assert body == {"inputs": [{"id": "q0", "b": "cG5n"}, {"id": "q1", "b": "Z25w"}], "top": 5}
    rows = [
        {"id": "q1", "items": [{"name": "a", "value": 1}]},
        {"id": "q0", "items": [{"name": "b", "value": 0.5}]},
    ]
    reply = provider.reply(WireReply(200, {}, json.dumps({"out": rows}).encode()), 2)
    assert reply.outcomes == ({"b": 0.5}, {"a": 1.0})
    assert json.loads(service(body=["{b64}"], max_batch=2).request([b"png", b"gnp"]).body) == ["cG5n", "Z25w"]


@pytest.mark.parametrize(
    ("auth", "headers", "query"),
    [
        ("auto", {"Authorization": "Bearer k"}, ""),
        ("none", {}, ""),
        ({"kind": "header", "name": "X-Key", "prefix": "Key "}, {"X-Key": "Key k"}, ""),
        ({"kind": "query", "name": "key"}, {}, "?key=k"),
        ("basic", {"Authorization": "Basic aw=="}, ""),
    ],
)
def test_where_the_secret_goes(auth: object, headers: dict[str, str], query: str) -> None:
    request = service("k", auth=auth).request([b"png"])
    sent = {n: v for n, v in request.headers.items() if n not in ("Content-Type", "Accept")}
    assert (sent, request.url) == (headers, BASE + query)


def test_a_secret_that_a_template_names_goes_nowhere_else() -> None:
    request = service("k", body={"key": "{secret}", "i": "{image}"}).request([b"png"])
    assert "Authorization" not in request.headers
    assert json.loads(request.body)["key"] == "k"
    form = service("k", auth={"kind": "form", "name": "api"}, body={"kind": "form", "form": {"i": "{b64}"}})
    assert form.request([b"png"]).body == b"i=cG5n&api=k"


def test_a_signature_of_aws() -> None:
    provider = service(
        "AKID:word:token", auth={"kind": "aws_sigv4", "service": "sagemaker", "region": "eu-west-1"}
    )
    headers = provider.request([b"png"]).headers
    assert "/eu-west-1/sagemaker/aws4_request" in headers["Authorization"]
    assert headers["X-Amz-Security-Token"] == "token"
    with pytest.raises(KeyRefused):
        service("word", auth="aws_sigv4").request([b"png"])


def test_jpeg_where_a_service_wants_it() -> None:
    import numpy as np

    png = encode(np.zeros((1, 16, 16, 3), np.uint8))[0]
    request = service(encode="jpeg:95:444").request([png])
    assert request.body[:3] == b"\xff\xd8\xff"
    assert request.headers["Content-Type"] == "image/jpeg"
    assert service(encode="jpeg:95").info.cache_scope != service(encode="png").info.cache_scope


@pytest.mark.parametrize(
    ("model", "param"),
    [
        ({"labels_path": "a[.b", "scores_path": "a"}, "model.response.labels_path"),
        ({"scores_path": ""}, "model.response.scores_path"),
        ({}, "model.response"),
        ({**ROWS, "body": {"i": "{imgae}"}}, "model.request.body.json"),
        ({**ROWS, "url": "/{env.KEY}"}, "model.request.url"),
        ({**ROWS, "headers": {"Host": "x"}}, "model.request.headers"),
        ({**ROWS, "headers": {"X-A": "a\r\nb"}}, "model.request.headers"),
        ({**ROWS, "body": "{broken"}, "model.request.body"),
        ({**ROWS, "methd": "POST"}, "model.methd"),
        ({**ROWS, "method": "DELETE"}, "model.request.method"),
        ({**ROWS, "score_kind": "odds"}, "model.response.score.kind"),
        ({**ROWS, "layout": "matrix"}, "model.response"),
        ({**ROWS, "max_batch": 4}, "model.request.batch.repeat_path"),
        ({**ROWS, "auth": "header"}, "model.request.auth"),
        ({**ROWS, "url": "http://other.example/x"}, "model.request.url"),
        ({**ROWS, "url": "/x", "request": {"url": "/y"}}, "model"),
        ({**ROWS, "encode": "gif"}, "model.image.encode"),
        ({**ROWS, "classify": [{"http": 500, "family": "odd"}]}, "model.errors.classify.0.family"),
        ({**ROWS, "missing": "zero"}, "model.response"),
    ],
)
def test_wrong_settings_name_their_member(model: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        make("http_json", BASE, model, "k", {})
    assert refused.value.param == param, refused.value.detail


# ---------------------------------------------------------------- reading

AB = {"scores_path": "p", "labels": ["a", "b"]}
A_NOT_B = {"scores_path": "p", "labels": ["a"], "complement": "b"}


@pytest.mark.parametrize(
    ("response", "body", "expected"),
    [
        (ROWS, {"items": [{"name": "a", "value": "0.25"}, {"name": "b", "value": 1}]}, {"a": 0.25, "b": 1.0}),
        (ROWS, {"items": []}, {}),
        ({"labels_path": "l", "scores_path": "s"}, {"l": ["a", "b"], "s": [0.2, 0.8]}, {"a": 0.2, "b": 0.8}),
        ({"scores_path": "p"}, {"p": {"a": 0.2, "b": 0}}, {"a": 0.2, "b": 0.0}),
        ({"layout": "dict"}, {"a": 0.2}, {"a": 0.2}),
        (AB, {"p": [0.2, 0.8]}, {"a": 0.2, "b": 0.8}),
        (AB, {"p": [[0.2, 0.8]]}, {"a": 0.2, "b": 0.8}),
        (AB, {"p": 0.25}, {"a": 0.25, "b": 0.75}),
        (A_NOT_B, {"p": 1}, {"a": 1.0, "b": 0.0}),
        ({**A_NOT_B, "score": {"kind": "percent"}}, {"p": 30}, {"a": 30.0, "b": 70.0}),
        ({"scores_path": "p", "labels": ["a"]}, {"p": 0.5}, {"a": 0.5}),
        ({"scores_path": "p", "score": {"scale": 0.01}}, {"p": {"a": 50}}, {"a": 0.5}),
        ({**AB, "score": {"normalise": "softmax"}}, {"p": [-3, -3]}, {"a": 0.5, "b": 0.5}),
        ({**AB, "score": {"normalise": "sum1"}}, {"p": [1, 3]}, {"a": 0.25, "b": 0.75}),
        ({"scores_path": "p", "score": {"kind": "logit"}}, {"p": {"a": -3.5}}, {"a": -3.5}),
        ({"labels_path": "top", "score": {"kind": "label"}}, {"top": "cat"}, {"cat": 1.0}),
        ({**AB, "missing": "zero"}, {"p": {"a": 1}}, {"a": 1.0, "b": 0.0}),
        ({**ROWS, "aggregate": "noisy_or"}, {"items": [{"name": "a", "value": 0.5}] * 2}, {"a": 0.75}),
        (
            {"scores_path": "p", "score": {"kind": "enum", "enum": {"UNLIKELY": 2, "UNKNOWN": None}}},
            {"p": {"a": "UNLIKELY", "b": "UNKNOWN"}},
            {"a": 2.0},
        ),
    ],
)  # fmt: skip
def test_layouts_and_score_kinds(response: dict[str, Any], body: object, expected: dict[str, float]) -> None:
    assert answer(service(response=response), body) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (ROWS, {"items": [{"name": "a"}, {"value": 0.5}]}),  # never a's label with b's score
        (ROWS, {"other": []}),
        ({"labels_path": "l", "scores_path": "s"}, {"l": ["a", "b"], "s": [1]}),
        (AB, {"p": [1, 0, 0]}),
        ({"scores_path": "p"}, {"p": 0.5}),
        ({**AB, "missing": "error"}, {"p": {"a": 1}}),
        ({"scores_path": "p"}, {"p": {"a": 1.1}}),
        ({"scores_path": "p"}, {"p": {"a": True}}),
        ({"scores_path": "p"}, {"p": {"a": "WORD"}}),
        ({"scores_path": "p", "score": {"normalise": "sum1"}}, {"p": {"a": -1, "b": 3}}),
    ],
)
def test_answers_that_are_none(response: dict[str, Any], body: object) -> None:
    with pytest.raises(ReplyInvalid):
        answer(service(response=response), body)


def test_versions_and_request_ids() -> None:
    body = json.dumps({"items": [{"name": "a", "value": 1}], "v": 7, "id": "r"}).encode()
    told = service(version_path="v", request_id_path="id").reply(WireReply(200, {}, body), 1)
    assert (told.version, told.request_id) == ("7", "r")
    header = service(version_path="header:X-Model-Version", version="c")
    assert header.reply(WireReply(200, {"x-model-version": "9"}, body), 1).version == "9"
    assert header.reply(WireReply(200, {}, body), 1).version == "c"


# ---------------------------------------------------------------- errors

AWS = [{"code": "(Throttling|ProvisionedThroughput).*", "family": "throttled"}]
LOADING = [{"http": 503, "family": "throttled", "wait_path": "estimated_time"}]
OPENAI = [{"http": 429, "code": "insufficient_quota", "family": "quota"}]
PICTURE = [{"http": 400, "message": "(?i)cannot identify image", "family": "permanent_input"}]


@pytest.mark.parametrize(
    ("settings", "status", "body", "family", "wait"),
    [
        ({"classify": AWS}, 400, {"__type": "ThrottlingException", "message": "m"}, Throttled, None),
        ({"classify": AWS}, 400, {"__type": "InvalidParameterException"}, ConfigError, None),
        ({"classify": LOADING}, 503, {"error": "loading", "estimated_time": 20.0}, Throttled, 20.0),
        ({"classify": OPENAI}, 429, {"error": {"code": "insufficient_quota"}}, QuotaExhausted, None),
        ({"classify": OPENAI}, 429, {"error": {"code": "rate_limit_exceeded"}}, Throttled, None),
        ({"classify": PICTURE}, 400, {"detail": "Cannot identify image file"}, Rejected, None),
        ({}, 429, {"message": "Please retry after 3 seconds"}, Throttled, 3.0),
        ({"errors": {"retry_after": "backoff=(\\d+)"}}, 429, {"message": "slow, backoff=4"}, Throttled, 4.0),
        ({"status_path": "s", "ok_values": ["ok"]}, 200, {"s": "oops"}, Unavailable, None),
        ({"status_path": "s", "config_error_values": ["key"]}, 200, {"s": "key"}, ConfigError, None),
        ({"status_path": "s", "retry_values": ["busy"]}, 200, {"s": "busy"}, Unavailable, None),
    ],
)
def test_errors(
    settings: dict[str, Any], status: int, body: object, family: type[ProviderError], wait: float | None
) -> None:
    with pytest.raises(ProviderError) as caught:
        answer(service(**settings), body, status)
    assert type(caught.value) is family
    assert caught.value.retry_after == wait
    assert caught.value.http_status == status


def test_an_item_of_a_batch_fails_alone() -> None:
    provider = service(
        body=["{b64}"],
        max_batch=4,
        items_path="out",
        item_status_path="status",
        ok_values=[0],
        retry_values=[5],
    )
    fine = {"status": 0, "items": [{"name": "a", "value": 1}]}
    body = {"out": [fine, {"status": 5, "message": "busy"}, fine]}
    a, b, c = provider.reply(WireReply(200, {}, json.dumps(body).encode()), 3).outcomes
    assert a == c == {"a": 1.0}
    assert isinstance(b, Unavailable)


# ---------------------------------------------------------------- the environment, and the bill


def test_variables_of_the_environment() -> None:
    """Only those set aside for it; they go out and are kept out of everything else."""
    model = {**ROWS, "headers": {"X-Key": "{env.REPROG_HTTP_KEY}"}, "query": {"t": "{{ env.REPROG_HTTP_T }}"}}
    values = {"REPROG_HTTP_KEY": "a-key-0123456789", "REPROG_HTTP_T": "tenant", "REPROG_SECRET_KEY": "ours"}
    lent = make("http_json", BASE, model, "", {}, values.get)
    request = lent.request([b"png"])
    assert request.headers["X-Key"] == "a-key-0123456789"
    assert request.url.endswith("?t=tenant")
    assert "a-key" not in lent.info.cache_scope + repr(lent)
    with pytest.raises(KeyRefused) as caught:
        answer(lent, {"error": "no a-key-0123456789 here"}, 401)
    assert "a-key" not in str(caught.value)
    with pytest.raises(BadRequest, match="REPROG_HTTP_KEY") as absent:
        make("http_json", BASE, model, "", {}, {}.get)
    assert absent.value.code == "secret_missing"


@pytest.mark.parametrize("name", ["REPROG_SECRET_KEY", "HOME", "REPROG_HTTP", "AWS_SECRET_ACCESS_KEY"])
def test_no_other_variable_is_lent(name: str) -> None:
    with pytest.raises(BadRequest, match="REPROG_HTTP_"):
        make("http_json", BASE, {**ROWS, "headers": {"X": f"{{env.{name}}}"}}, "", {}, lambda _: "x")


@pytest.mark.parametrize(
    ("told", "billed"), [(0, 0), (1, 1), (2.0, 2), ("1", None), (-1, None), (None, None)]
)
def test_units_that_the_service_bills(told: object, billed: int | None) -> None:
    rows = {"items": [{"name": "a", "value": 0.5}], "usage": {"operations": told}}
    reply = service(billed_units_path="usage.operations").reply(
        WireReply(200, {}, json.dumps(rows).encode()), 1
    )
    assert reply.billed == billed
