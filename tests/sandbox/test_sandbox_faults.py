"""Every fault switch does what it says, charges what it should, and falls the same way for the same seed."""

import email.utils
import hashlib
import time
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from sandbox_client import Client, encoded, picture

from app.sandbox.classifiers import load
from app.sandbox.faults import Faults

IMAGE = encoded(picture(1))


def values(reply: httpx.Response) -> list[float]:
    return [concept["value"] for concept in reply.json()["outputs"][0]["data"]["concepts"]]


def test_switches_are_shown_changed_one_by_one_and_cleared(client: Client) -> None:
    assert client.http.get("/faults").json() == Faults().model_dump(mode="json")
    client.faults(latency_ms=5)
    client.faults(top_k=3)
    shown = client.http.get("/faults").json()
    assert (shown["latency_ms"], shown["top_k"]) == (5, 3)
    assert client.http.delete("/faults").json() == Faults().model_dump(mode="json")


@pytest.mark.parametrize(
    "given", [{"p_explode": 1}, {"p_5xx": 2}, {"retry_after_style": "soon"}, {"top_k": 0}]
)
def test_a_wrong_switch_is_named_and_changes_nothing(client: Client, given: dict[str, object]) -> None:
    reply = client.http.post("/faults", json={"latency_ms": 1, **given})
    assert reply.status_code == 422
    assert reply.json()["field"] == next(iter(given))
    assert client.http.get("/faults").json() == Faults().model_dump(mode="json")


@pytest.mark.parametrize("billed", [False, True])
def test_server_errors(client: Client, billed: bool) -> None:
    client.faults(p_5xx=1, billing_on_5xx=billed, rate_limit_rps=0)
    images = [encoded(picture(seed)) for seed in range(12)]
    clarifai = [client.clarifai(image) for image in images]
    azure = [client.custom_vision(image) for image in images]
    assert {reply.status_code for reply in clarifai} == {500, 502, 503}
    assert {reply.status_code for reply in azure} == {500, 502, 503}
    assert any("text/html" in reply.headers["content-type"] for reply in clarifai)
    assert {r.json()["status"]["code"] for r in clarifai if r.status_code != 502} == {90500, 40031}
    bill = client.bill()
    assert bill["failed"] == 24
    assert bill["billable_queries"] == (24 if billed else 0)


@pytest.mark.parametrize(("point", "billed"), [("before", 0), ("after", 1)])
def test_reset_connections(client: Client, point: str, billed: int) -> None:
    client.faults(p_reset=1, reset_point=point)
    with pytest.raises(httpx.ReadError):
        client.clarifai(IMAGE)
    client.faults(p_reset=0)
    assert client.bill()["billable_queries"] == billed
    assert client.bill()["failed"] == 1
    assert client.clarifai(IMAGE).status_code == 200


def test_truncated_bodies_are_billed(client: Client) -> None:
    client.faults(p_truncated=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        client.custom_vision(IMAGE)
    assert client.bill()["billable_queries"] == 1


def test_wrong_json_is_billed(client: Client) -> None:
    client.faults(p_wrong_json=1, rate_limit_rps=0)
    replies = [client.clarifai(encoded(picture(seed))) for seed in range(12)]
    bodies = [reply.json() for reply in replies]
    assert {reply.status_code for reply in replies} == {200}
    assert all("outputs" not in body for body in bodies)
    assert len({str(body) for body in bodies}) == 3
    assert client.bill()["billable_queries"] == 12


def test_latency_and_hanging(client: Client) -> None:
    client.clarifai(IMAGE)
    client.faults(latency_ms=120)
    start = time.monotonic()
    client.clarifai(IMAGE)
    assert time.monotonic() - start >= 0.12
    client.faults(latency_ms=0, p_hang=1, hang_seconds=0.7)
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(
            "/v2/models/nsfw-recognition/outputs",
            json={"inputs": []},
            headers=client.authorization,
            timeout=0.2,
        )
    start = time.monotonic()
    assert client.clarifai(IMAGE).status_code == 200
    assert time.monotonic() - start >= 0.7


def test_refused_keys(client: Client) -> None:
    client.faults(p_401=1)
    assert client.clarifai(IMAGE).json()["status"]["code"] == 11009
    assert client.custom_vision(IMAGE).status_code == 401
    client.faults(p_401=0, key_refused=[client.key])
    assert client.clarifai(IMAGE).status_code == 401
    assert client.http.get("/v2/models", headers=client.authorization).status_code == 401
    other = Client(client.http, f"{client.key}-other")
    assert other.clarifai(IMAGE).status_code == 200
    client.faults(key_refused=True)
    assert other.clarifai(IMAGE).status_code == 401


def test_monthly_quota(client: Client) -> None:
    client.faults(monthly_quota=2)
    assert client.clarifai(IMAGE, IMAGE).status_code == 200
    clarifai, azure = client.clarifai(IMAGE), client.custom_vision(IMAGE)
    assert (clarifai.status_code, clarifai.json()["status"]["code"]) == (429, 11004)
    assert azure.status_code == 403
    assert "Out of call volume quota" in azure.json()["message"]
    assert client.bill()["billable_queries"] == 2


@pytest.mark.parametrize("style", ["seconds", "date", "text", "none", "huge"])
def test_styles_of_retry_after(client: Client, style: str) -> None:
    client.faults(rate_limit_rps=1, retry_after_style=style)
    client.clarifai(IMAGE)
    client.custom_vision(IMAGE)
    for reply in (client.clarifai(IMAGE), client.custom_vision(IMAGE)):
        assert reply.status_code == 429
        header, text = reply.headers.get("Retry-After"), reply.text
        if style == "seconds":
            assert header == "1"
        elif style == "huge":
            assert header == "86400"
            assert "86400 second" in text
        elif style == "date":
            assert header is not None
            wait = (email.utils.parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
            assert 0 < wait <= 2
        else:
            assert header is None
            assert ("retry after 1 second" in text) == (style == "text")


def test_single_inputs_fail_by_chance_and_pass_later(client: Client) -> None:
    client.faults(per_input_failure_rate=0.5, seed=3, rate_limit_rps=0)
    waiting = [encoded(picture(seed)) for seed in range(16)]
    rounds = 0
    while waiting:
        reply = client.clarifai(*waiting)
        codes = [output["status"]["code"] for output in reply.json()["outputs"]]
        assert set(codes) <= {10000, 40031}
        waiting = [image for image, code in zip(waiting, codes, strict=True) if code == 40031]
        rounds += 1
    assert rounds > 1
    assert client.bill()["billable_queries"] == 16


def test_poisoned_images_never_work(client: Client) -> None:
    client.faults(poison=[hashlib.sha256(IMAGE).hexdigest()])
    reply = client.clarifai(IMAGE, encoded(picture(2)))
    assert [output["status"]["code"] for output in reply.json()["outputs"]] == [47104, 10000]
    assert client.custom_vision(IMAGE).json()["code"] == "BadRequestImageFormat"
    assert client.bill()["billable_queries"] == 1


def test_noise_moves_scores_on_every_call(client: Client) -> None:
    exact = values(client.clarifai(IMAGE, model="moderation-recognition"))
    client.faults(score_noise=0.01)
    first, second = (values(client.clarifai(IMAGE, model="moderation-recognition")) for _ in range(2))
    assert first != second
    assert first == pytest.approx(exact, rel=0.1)
    assert sum(first) == pytest.approx(1, abs=1e-5)


def test_rounding_and_cutting(client: Client) -> None:
    client.faults(quantise_decimals=2, top_k=3)
    cut = values(client.clarifai(IMAGE, model="moderation-recognition"))
    assert len(cut) == 3
    assert cut == [round(value, 2) for value in cut]
    client.faults(top_k=None, min_value=0.01)
    kept = client.custom_vision(IMAGE).json()["predictions"]
    assert 0 < len(kept) < 43
    assert all(found["probability"] >= 0.01 for found in kept)


def test_recompression_and_reduction_happen_before_the_model(client: Client) -> None:
    exact = values(client.clarifai(IMAGE, model="moderation-recognition"))
    client.faults(jpeg_recompress_q=20)
    assert values(client.clarifai(IMAGE, model="moderation-recognition")) != exact
    client.faults(jpeg_recompress_q=None, server_resize=8)
    assert values(client.clarifai(IMAGE, model="moderation-recognition")) != exact


def test_version_changes_under_an_unversioned_address(client: Client) -> None:
    client.faults(version_flip_after_n=2)

    def ask() -> tuple[str, list[float]]:
        reply = client.clarifai(IMAGE, model="moderation-recognition-128")
        output = reply.json()["outputs"][0]
        return output["model"]["model_version"]["id"], values(reply)

    (v1, s1), (v2, s2), (v3, s3) = ask(), ask(), ask()
    assert (v1, s1) == (v2, s2)
    assert v3 != v1
    assert s3 != s1
    pinned = client.clarifai(IMAGE, path=f"/v2/models/moderation-recognition-128/versions/{v1}/outputs")
    assert values(pinned) == s1
    iterations = [client.custom_vision(IMAGE).json()["iteration"] for _ in range(3)]
    assert iterations[0] == iterations[1] != iterations[2]


def test_a_seed_repeats_the_same_faults_in_any_order(client: Client) -> None:
    images = [encoded(picture(seed)) for seed in range(20)]

    def codes(seed: int, order: list[int]) -> dict[int, list[int]]:
        client.http.delete("/faults")
        client.faults(p_5xx=0.4, seed=seed, rate_limit_rps=0)
        seen: dict[int, list[int]] = {n: [] for n in order}
        for n in order * 2:
            seen[n].append(client.custom_vision(images[n]).status_code)
        return seen

    forward, backward = codes(7, list(range(20))), codes(7, list(range(19, -1, -1)))
    assert forward == backward
    assert codes(8, list(range(20))) != forward
    failures = sum(code >= 500 for pair in forward.values() for code in pair)
    assert 8 <= failures <= 24
    assert any(pair[0] != pair[1] for pair in forward.values())  # another try is another draw


def test_calm_sandbox_equals_the_classifier(client: Client) -> None:
    """No switch leaves a trace once it is off."""
    client.faults(score_noise=1, quantise_decimals=1, jpeg_recompress_q=10)
    client.clarifai(IMAGE)
    client.http.delete("/faults")
    classifier = load("nsfw", 128)
    expected = np.sort(classifier.scores(picture(1)[None])[0])[::-1]
    assert values(client.clarifai(IMAGE)) == expected.tolist()
