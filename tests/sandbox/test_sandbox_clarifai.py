"""Clarifai's wire format: paths, predictions, errors, listings."""

import base64
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image
from sandbox_client import Client, encoded, picture

from app.sandbox.server import SandboxConfig, running

NSFW_HEX = "e9576d86d2004ed1a38ba0cf39ecb4b1"
MODERATION_HEX = "d16f390eb32cad478c7ae150069bd2c6"


def code(reply: httpx.Response) -> int:
    return reply.json()["status"]["code"]


def output_codes(reply: httpx.Response) -> list[int]:
    return [output["status"]["code"] for output in reply.json()["outputs"]]


def current_version(client: Client, model: str) -> str:
    reply = client.http.get(f"/v2/models/{model}", headers=client.authorization)
    return reply.json()["model"]["model_version"]["id"]


@pytest.mark.parametrize("model", ["nsfw-recognition", NSFW_HEX])
@pytest.mark.parametrize("prefix", ["/v2", "/v2/users/clarifai/apps/main"])
@pytest.mark.parametrize("versioned", [False, True])
def test_all_paths_predict(client: Client, model: str, prefix: str, versioned: bool) -> None:
    version = f"/versions/{current_version(client, model)}" if versioned else ""
    reply = client.clarifai(encoded(picture()), path=f"{prefix}/models/{model}{version}/outputs")
    assert reply.status_code == 200
    assert code(reply) == 10000
    (output,) = reply.json()["outputs"]
    assert output["status"]["code"] == 10000
    assert output["model"]["id"] == "nsfw-recognition"
    assert output["model"]["model_version"]["id"] == current_version(client, model)
    assert output["input"] == {"id": "q-0", "data": {"image": {"base64": "true"}}}
    concepts = {concept["name"]: concept["id"] for concept in output["data"]["concepts"]}
    assert concepts == {"sfw": "ai_RT20lm2Q", "nsfw": "ai_KxzHKtPl"}


def test_concepts_fall_in_value_and_sum_to_one(client: Client) -> None:
    reply = client.clarifai(*(encoded(picture(seed)) for seed in range(4)), model=MODERATION_HEX)
    outputs = reply.json()["outputs"]
    assert [output["input"]["id"] for output in outputs] == ["q-0", "q-1", "q-2", "q-3"]
    for output in outputs:
        values = [concept["value"] for concept in output["data"]["concepts"]]
        assert values == sorted(values, reverse=True)
        assert len(values) == 5
        assert sum(values) == pytest.approx(1, abs=1e-5)


def test_ids_of_inputs_are_made_where_missing(client: Client) -> None:
    image = {"base64": base64.b64encode(encoded(picture())).decode()}
    body = {
        "inputs": [{"data": {"image": image}}, {"data": {"image": image}}],
        "user_app_id": {"user_id": "me"},
    }
    reply = client.http.post(
        "/v2/models/nsfw-recognition/outputs", json=body, headers=client.authorization
    ).json()
    ids = [output["input"]["id"] for output in reply["outputs"]]
    assert len(set(ids)) == 2
    assert all(ids)


@pytest.mark.parametrize(
    ("asked", "given"), [(None, 20), (0, 20), (3, 3), (200, 200), (1000, 1000), (5000, 1000)]
)
def test_max_concepts(client: Client, asked: int | None, given: int) -> None:
    config = {} if asked is None else {"max_concepts": asked}
    reply = client.clarifai(encoded(picture()), model="imagenet-classification", **config)
    assert len(reply.json()["outputs"][0]["data"]["concepts"]) == given


def test_min_value_and_select_concepts_leave_others_out(client: Client) -> None:
    image = encoded(picture())
    everything = client.clarifai(image, model="moderation-recognition").json()["outputs"][0]["data"][
        "concepts"
    ]
    bound = everything[2]["value"]
    kept = client.clarifai(image, model="moderation-recognition", min_value=bound).json()
    assert kept["outputs"][0]["data"]["concepts"] == everything[:3]
    chosen = [{"id": everything[4]["id"]}, {"name": everything[1]["name"]}]
    selected = client.clarifai(image, model="moderation-recognition", select_concepts=chosen).json()
    assert selected["outputs"][0]["data"]["concepts"] == [everything[1], everything[4]]


def test_batch_cap(client: Client) -> None:
    tiny = encoded(picture(0, 8))
    assert len(client.clarifai(*[tiny] * 128).json()["outputs"]) == 128
    refused = client.clarifai(*[tiny] * 129)
    assert refused.status_code == 400
    assert code(refused) == 11102
    assert client.bill()["billable_queries"] == 128


def test_part_of_a_batch_may_fail(client: Client) -> None:
    good = encoded(picture())
    reply = client.clarifai(good, b"not an image", good[: len(good) // 2], good)
    assert reply.status_code == 207
    assert code(reply) == 10010
    assert output_codes(reply) == [10000, 30101, 47104, 10000]
    assert reply.json()["outputs"][1]["data"] == {}
    assert client.bill()["billable_queries"] == 2


def test_a_batch_without_success(client: Client) -> None:
    reply = client.clarifai(b"no", b"neither")
    assert reply.status_code == 400
    assert code(reply) == 10020
    assert output_codes(reply) == [30101, 30101]
    assert client.bill()["billable_queries"] == 0


def test_urls_are_never_fetched(client: Client) -> None:
    body = {"inputs": [{"data": {"image": {"url": "http://127.0.0.1:1/x.png"}}}]}
    reply = client.http.post("/v2/models/nsfw-recognition/outputs", json=body, headers=client.authorization)
    assert reply.status_code == 400
    assert output_codes(reply) == [30002]


def test_base64_must_be_plain(client: Client) -> None:
    text = "data:image/png;base64," + base64.b64encode(encoded(picture())).decode()
    body = {"inputs": [{"data": {"image": {"base64": text}}}, {"data": {}}]}
    reply = client.http.post("/v2/models/nsfw-recognition/outputs", json=body, headers=client.authorization)
    assert output_codes(reply) == [30104, 30104]


def test_images_over_the_limits(client: Client) -> None:
    buffer = BytesIO()
    Image.new("1", (9300, 9300)).save(buffer, "PNG")  # 86 megapixels in a few kilobytes
    heavy = encoded(picture()) + bytes(20_000_000)
    reply = client.clarifai(buffer.getvalue(), heavy, encoded(picture()))
    assert output_codes(reply) == [30105, 30105, 10000]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_formats(client: Client, kind: str) -> None:
    assert client.clarifai(encoded(picture(), kind)).status_code == 200


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "CMYK", "LA"])
def test_other_colour_modes_are_read(client: Client, mode: str) -> None:
    buffer = BytesIO()
    Image.fromarray(picture()).convert(mode).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    assert client.clarifai(buffer.getvalue()).status_code == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 11002),
        ({"Authorization": "Key stranger"}, 11009),
        ({"Authorization": "Basic sandbox-x"}, 11002),
    ],
)
def test_keys_are_checked(client: Client, headers: dict[str, str], expected: int) -> None:
    for path in ("/v2/models/nsfw-recognition/outputs", "/v2/models/no-such/outputs"):
        reply = client.http.post(path, json={}, headers=headers)
        assert reply.status_code == 401
        assert code(reply) == expected
    assert client.http.get("/v2/models", headers=headers).status_code == 401


def test_only_listed_keys_where_keys_are_given() -> None:
    with (
        running(SandboxConfig(size=128, keys=("mine",), workers=1)) as url,
        httpx.Client(base_url=url) as http,
    ):
        assert http.get("/v2/models", headers={"Authorization": "Key mine"}).status_code == 200
        assert http.get("/v2/models", headers={"Authorization": "Key sandbox-x"}).status_code == 401


def test_bad_requests(client: Client) -> None:
    def post(content: bytes, path: str = "/v2/models/nsfw-recognition/outputs") -> tuple[int, int]:
        reply = client.http.post(path, content=content, headers=client.authorization)
        return reply.status_code, code(reply)

    assert post(b"{not json") == (400, 11100)
    assert post(b'{"inputs": "text"}') == (400, 11100)
    assert post(b'{"inputs": []}') == (400, 11102)
    assert post(b"{}", "/v2/models/unheard-of/outputs") == (404, 21200)
    assert post(b"{}", "/v2/models/nsfw-recognition/versions/0123/outputs") == (404, 21200)
    assert post(b"{}", "/v2/nowhere") == (404, 11101)
    wrong_verb = client.http.get("/v2/models/nsfw-recognition/outputs", headers=client.authorization)
    assert (wrong_verb.status_code, code(wrong_verb)) == (405, 11103)


def test_models_are_listed_in_pages_that_end(client: Client) -> None:
    seen: list[str] = []
    for page in range(1, 100):
        reply = client.http.get(f"/v2/models?page={page}&per_page=4", headers=client.authorization).json()
        if not reply["models"]:
            break
        assert len(reply["models"]) <= 4
        assert all(m["created_at"] and m["model_version"]["status"]["code"] == 21100 for m in reply["models"])
        seen += [model["id"] for model in reply["models"]]
    assert len(seen) == len(set(seen)) == 9
    assert {"nsfw-recognition", "moderation-recognition-128", "imagenet-classification-224"} <= set(seen)


def test_output_info_lists_the_concepts(client: Client) -> None:
    path = "/v2/users/clarifai/apps/main/models/moderation-recognition/output_info"
    info = client.http.get(path, headers=client.authorization).json()["model"]["output_info"]
    names = [concept["name"] for concept in info["data"]["concepts"]]
    assert names == ["drawing", "hentai", "neutral", "porn", "sexy"]
    assert info["output_config"]["concepts_mutually_exclusive"] is True


def test_sizes_are_different_models_with_versions_of_their_own(client: Client) -> None:
    image = encoded(picture(1, 224))
    replies = {
        suffix: client.clarifai(image, model=f"moderation-recognition{suffix}").json()["outputs"][0]
        for suffix in ("", "-128", "-224")
    }
    concepts = {suffix: reply["data"]["concepts"] for suffix, reply in replies.items()}
    versions = {suffix: reply["model"]["model_version"]["id"] for suffix, reply in replies.items()}
    assert concepts[""] == concepts["-128"] != concepts["-224"]
    assert versions[""] == versions["-128"] != versions["-224"]
    listed = client.http.get("/v2/models/moderation-recognition-224/versions", headers=client.authorization)
    assert [version["id"] for version in listed.json()["model_versions"]] == [versions["-224"]]


def test_rate_limit(client: Client) -> None:
    """Fifteen in a second whatever the batch, then 11005 without Retry-After; a second later all is well."""
    image = encoded(picture())
    client.faults(rate_limit_rps=3)
    replies = [client.clarifai(image, image) for _ in range(5)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    assert code(replies[4]) == 11005
    assert "3 requests per second" in replies[4].json()["status"]["details"]
    assert "Retry-After" not in replies[4].headers
    assert client.bill()["billable_queries"] == 6


def test_scores_do_not_depend_on_the_batch_over_http(client: Client) -> None:
    images = [encoded(picture(seed)) for seed in range(6)]
    together = client.clarifai(*images, model="moderation-recognition").json()["outputs"]
    alone = [client.clarifai(image, model="moderation-recognition").json()["outputs"][0] for image in images]
    assert [output["data"] for output in together] == [output["data"] for output in alone]
    values = [output["data"]["concepts"][0]["value"] for output in together]
    assert np.unique(values).size > 1
