"""Endpoints in four foreign wire formats: answers, keys, batches, errors in each format's own words."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from api_house import House, png

from app.errors import BadRequest, BudgetExhausted, Unusable
from app.reprogramming import picture

IMAGE = png(7)
TEXT = b64encode(IMAGE).decode()
AZURE = (
    "/compat/azure/customvision/v3.1/prediction/11111111-2222-3333-4444-555555555555/classify/iterations/pets"
)
CLARIFAI = "/compat/clarifai/v2/models/pets/outputs"
HF = "/compat/hf/pets"
INFER = "/v2/models/pets/infer"


@pytest.fixture
async def pets(house: House) -> House:
    await publish(house)
    return house


async def publish(house: House) -> None:
    job = await house.finished_job()
    await house.ok("POST", "/v1/endpoints", json={"name": "pets", "job_id": job["id"]})


def clarifai(*images: str, **config: Any) -> dict[str, Any]:
    inputs = [{"id": f"i{n}", "data": {"image": {"base64": image}}} for n, image in enumerate(images)]
    return {"inputs": inputs, "model": {"output_info": {"output_config": config}}}


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]} | changes


# ---------------------------------------------------------------- Hugging Face


@pytest.mark.parametrize("path", [HF, "/compat/hf/models/pets"])
async def test_hf_raw_bytes(pets: House, path: str) -> None:
    """As the official client sends them: without a Content-Type."""
    response = await pets.client.post(path, content=IMAGE)
    assert [row["label"] for row in response.json()] == ["cat", "owl", "dog"]
    assert sum(row["score"] for row in response.json()) == pytest.approx(1)
    assert response.headers["x-remote-queries"] == "4"
    assert pets.predictor.asked == [[IMAGE]]


async def test_hf_json_with_top_k(pets: House) -> None:
    body = {"inputs": TEXT, "parameters": {"top_k": 1, "function_to_apply": "softmax"}}
    assert await pets.ok("POST", HF, json=body) == [{"label": "cat", "score": 0.5}]
    assert await pets.ok("POST", HF, content=json.dumps(body)) == [{"label": "cat", "score": 0.5}]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"inputs": "?"}', b'{"inputs": 1}'])
async def test_hf_errors(pets: House, body: bytes) -> None:
    response = await pets.client.post(HF, content=body)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    missing = await pets.client.post("/compat/hf/nobody", content=IMAGE)
    assert (missing.status_code, list(missing.json())) == (404, ["error"])


# ---------------------------------------------------------------- Custom Vision


@pytest.mark.parametrize("path", [AZURE + "/image", AZURE + "/image/nostore"])
async def test_azure_octets(pets: House, path: str) -> None:
    kind = {"Content-Type": "application/octet-stream"}
    for spelling in (
        path,
        path.replace("prediction", "Prediction"),
        path.replace("customvision", "CustomVision"),
    ):
        answer = await pets.ok("POST", spelling, content=IMAGE, headers=kind)
        assert [tag["tagName"] for tag in answer["predictions"]] == ["cat", "owl", "dog"]
        assert answer["project"] == "11111111-2222-3333-4444-555555555555"
        assert {tag["tagType"] for tag in answer["predictions"]} == {"Regular"}
    assert pets.predictor.asked == [[IMAGE]] * 3


@pytest.mark.parametrize("size", [100, 3_000_000])
@pytest.mark.parametrize("head", ['name="imageData"', 'name="imageData"; filename="a.png"', "name=imageData"])
async def test_azure_multipart(pets: House, size: int, head: str) -> None:
    """As the official Python client sends bytes: no filename, no type, whatever the size."""
    image = np.random.default_rng(3).bytes(size) + b"\r\n--x\r\n\r\n"
    form = (
        b"--b0\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + image + b"\r\n--b0--\r\n"
    )
    kind = {"Content-Type": 'multipart/form-data; boundary="b0"'}
    await pets.ok("POST", AZURE + "/image", content=form, headers=kind)
    assert pets.predictor.asked == [[image]]


async def test_azure_ids_are_stable(pets: House) -> None:
    first, second = [await pets.ok("POST", AZURE + "/image", content=IMAGE) for _ in range(2)]
    assert first["iteration"] == second["iteration"]
    assert first["predictions"] == second["predictions"]
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "code"),
    [
        (AZURE + "/image", b"", "application/octet-stream", 400, "BadRequestImageStream"),
        (AZURE + "/image", b"{}", "application/json", 415, "UnsupportedMediaType"),
        (AZURE + "/image", b"x", "multipart/form-data", 400, "BadRequestImageStream"),
        (AZURE + "/url", b'{"url": "http://x"}', "application/json", 400, "BadRequestImageUrl"),
        (AZURE.replace("pets", "nobody") + "/image", b"x", "image/png", 404, "NotFoundIteration"),
        (AZURE.replace("classify", "detect") + "/image", b"x", "image/png", 404, "NotFoundIteration"),
    ],
)
async def test_azure_errors(pets: House, path: str, body: bytes, kind: str, status: int, code: str) -> None:
    response = await pets.client.post(path, content=body, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert set(response.json()) == {"code", "message"}


# ---------------------------------------------------------------- Clarifai


@pytest.mark.parametrize(
    "path",
    [
        CLARIFAI,
        "/compat/clarifai/v2/models/pets/versions/v/outputs",
        "/compat/clarifai/v2/users/u/apps/a/models/pets/outputs",
        "/compat/clarifai/v2/users/u/apps/a/models/pets/versions/v/outputs",
    ],
)
async def test_clarifai_batches(pets: House, path: str) -> None:
    answer = await pets.ok("POST", path, json={**clarifai(TEXT, TEXT), "user_app_id": {"user_id": "u"}})
    assert answer["status"]["code"] == 10000
    assert [output["input"]["id"] for output in answer["outputs"]] == ["i0", "i1"]
    concepts = answer["outputs"][1]["data"]["concepts"]
    assert [concept["name"] for concept in concepts] == ["cat", "owl", "dog"]
    assert [concept["value"] for concept in concepts] == [0.5, 0.4, 0.1]
    assert pets.predictor.asked == [[IMAGE, IMAGE]]


@pytest.mark.parametrize("root", ["", "/users/u/apps/a"])
async def test_clarifai_models(pets: House, root: str) -> None:
    """What clients call before they predict: pages of models up to an empty one, a model, its versions."""
    here = f"/compat/clarifai/v2{root}/models"
    first = await pets.ok("GET", f"{here}?page=1&per_page=20")
    [model] = first["models"]
    assert first["status"]["code"] == 10000
    assert (model["id"], model["model_version"]["status"]["code"]) == ("pets", 21100)
    assert model["created_at"]
    assert (await pets.ok("GET", f"{here}?page=2&per_page=20"))["models"] == []
    assert (await pets.ok("GET", f"{here}/pets"))["model"] == model
    versions = (await pets.ok("GET", f"{here}/pets/versions"))["model_versions"]
    assert versions == [model["model_version"]]
    one = await pets.ok("GET", f"{here}/pets/versions/{versions[0]['id']}")
    assert one["model_version"] == versions[0]
    info = await pets.ok("GET", f"{here}/pets/output_info")
    names = [concept["name"] for concept in info["model"]["output_info"]["data"]["concepts"]]
    assert names == ["dark", "light"]
    missing = await pets.client.get(f"{here}/nobody")
    assert (missing.status_code, missing.json()["status"]["code"]) == (404, 21200)
    assert (await pets.client.get(f"{here}/pets/versions/x")).status_code == 404


async def test_clarifai_options(pets: House) -> None:
    async def names(**config: Any) -> list[str]:
        answer = await pets.ok("POST", CLARIFAI, json=clarifai(TEXT, **config))
        return [concept["name"] for concept in answer["outputs"][0]["data"]["concepts"]]

    assert await names(max_concepts=1) == ["cat"]
    assert await names(min_value=0.2) == ["cat", "owl"]
    assert await names(select_concepts=[{"name": "dog"}]) == ["dog"]


def strict(house: House, refused: bytes = b"") -> None:
    """A predictor that, like the real one, fails a whole request for one bad image."""
    plain = house.predictor.predict

    async def predict(name: str, files: list[bytes], caller: object) -> Any:
        for data in files:
            picture.decode(data)
        if refused in files:
            raise BadRequest("The provider refused the image.", code="image_rejected")
        return await plain(name, files)

    house.predictor.predict = predict  # type: ignore[method-assign]


async def test_clarifai_a_bad_input_fails_alone(pets: House) -> None:
    strict(pets, refused=png(9))
    junk, url = b64encode(b"junk").decode(), {"id": "u", "data": {"image": {"url": "http://127.0.0.1/x.png"}}}
    body = clarifai(TEXT, junk, b64encode(png(9)).decode(), "?", b64encode(png(8)).decode())
    response = await pets.client.post(CLARIFAI, json={"inputs": [*body["inputs"], url]})
    answer = response.json()
    assert (response.status_code, answer["status"]["code"]) == (207, 10010)
    codes = [output["status"]["code"] for output in answer["outputs"]]
    assert codes == [10000, 30101, 30101, 30104, 10000, 30002]
    assert [bool(output["data"]) for output in answer["outputs"]] == [True, False, False, False, True, False]
    assert sorted(file for files in pets.predictor.asked for file in files) == sorted([IMAGE, png(8)])
    assert response.headers["x-remote-queries"] == "8"


async def test_clarifai_all_inputs_bad(pets: House) -> None:
    strict(pets)
    response = await pets.client.post(CLARIFAI, json=clarifai("?", b64encode(b"junk").decode()))
    assert (response.status_code, response.json()["status"]["code"]) == (400, 10020)
    assert len(response.json()["outputs"]) == 2


@pytest.mark.parametrize("body", [{}, {"inputs": []}, {"inputs": "x"}, clarifai(*[TEXT] * 129)])
async def test_clarifai_bad_requests(pets: House, body: dict[str, Any]) -> None:
    response = await pets.client.post(CLARIFAI, json=body)
    assert (response.status_code, response.json()["status"]["code"]) == (400, 11102)
    missing = await pets.client.post(CLARIFAI.replace("pets", "nobody"), json=clarifai(TEXT))
    assert (missing.status_code, missing.json()["status"]["code"]) == (404, 21200)


# ---------------------------------------------------------------- Open Inference Protocol


async def test_oip_about(pets: House) -> None:
    assert (await pets.ok("GET", "/v2"))["name"] == "reprog"
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/pets/ready",
        "/v2/models/pets/versions/1/ready",
    ):
        await pets.ok("GET", path)
    described = await pets.ok("GET", "/v2/models/pets")
    assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    missing = await pets.client.get("/v2/models/nobody/ready")
    assert (missing.status_code, list(missing.json())) == (404, ["error"])


async def test_oip_base64(pets: House) -> None:
    body = {"id": "q1", "inputs": [tensor(shape=[2, 1], data=[TEXT, TEXT])]}
    answer = await pets.ok("POST", INFER, json=body)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("q1", "pets", "1")
    scores, labels = answer["outputs"]
    assert scores["shape"] == [2, 3]
    assert scores["data"] == pytest.approx([0.5, 0.1, 0.4] * 2)
    assert labels == {"name": "labels", "datatype": "BYTES", "shape": [3], "data": ["cat", "dog", "owl"]}
    assert pets.predictor.asked == [[IMAGE, IMAGE]]


async def test_oip_binary_extension(pets: House) -> None:
    raw = struct.pack("<I", len(IMAGE)) + IMAGE
    given = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    response = await pets.client.post(
        INFER, content=head + raw, headers={"Inference-Header-Content-Length": str(len(head))}
    )
    length = int(response.headers["Inference-Header-Content-Length"])
    scores, labels = json.loads(response.content[:length])["outputs"]
    cut = length + scores["parameters"]["binary_data_size"]
    assert np.frombuffer(response.content[length:cut], "<f4") == pytest.approx([0.5, 0.1, 0.4])
    assert response.content[cut:] == b"".join(
        struct.pack("<I", 3) + name for name in (b"cat", b"dog", b"owl")
    )
    assert labels["parameters"]["binary_data_size"] == 21
    assert pets.predictor.asked == [[IMAGE]]


@pytest.mark.parametrize("first", [True, False])
async def test_oip_pixels(pets: House, first: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), np.uint8)
    sent = pixels.transpose(0, 3, 1, 2) if first else pixels
    await pets.ok(
        "POST", INFER, json={"inputs": [tensor(datatype="UINT8", shape=sent.shape, data=sent.tolist())]}
    )
    [files] = pets.predictor.asked
    assert [picture.decode(file).tolist() for file in files] == pixels.tolist()


async def test_oip_classification(pets: House) -> None:
    wanted = [{"name": "scores", "parameters": {"classification": 2}}]
    answer = await pets.ok("POST", INFER, json={"inputs": [tensor()], "outputs": wanted})
    assert answer["outputs"][0]["data"] == ["0.500000:0:cat", "0.400000:2:owl"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {"inputs": []},
        {"inputs": [tensor(data=["?"])]},
        {"inputs": [tensor(shape=[2])]},
        {"inputs": [tensor(datatype="FP32", data=[0.5])]},
        {"inputs": [tensor(data=None)]},
        {"inputs": [tensor(datatype="UINT8", shape=[2, 2, 3], data=[1, 2])]},
        {"inputs": [tensor(datatype="UINT8", shape=[1, 1, 3], data=[1, 2, 300])]},
        {"inputs": [tensor()], "outputs": [{"name": "probs"}]},
        {"inputs": [tensor(shape=[200], data=[TEXT] * 200)]},
    ],
)
async def test_oip_bad_requests(pets: House, body: Any) -> None:
    response = await pets.client.post(INFER, content=body if isinstance(body, bytes) else json.dumps(body))
    assert (response.status_code, list(response.json())) == (400, ["error"])
    bad = await pets.client.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": "99"})
    assert bad.status_code == 400


# ---------------------------------------------------------------- all four

Call = tuple[str, dict[str, Any], Callable[[str], dict[str, str]]]
CALLS: dict[str, Call] = {
    "hf": (HF, {"content": IMAGE}, lambda key: {"Authorization": f"Bearer {key}"}),
    "azure": (AZURE + "/image", {"content": IMAGE}, lambda key: {"Prediction-Key": key}),
    "clarifai": (CLARIFAI, {"json": clarifai(TEXT)}, lambda key: {"Authorization": f"Key {key}"}),
    "oip": (INFER, {"json": {"inputs": [tensor()]}}, lambda key: {"Authorization": f"Bearer {key}"}),
}


@pytest.mark.parametrize("format", CALLS)
async def test_keys_come_in_the_formats_own_header(make_house: Callable[..., House], format: str) -> None:
    house = make_house()
    async with house.client:
        await publish(house)
    closed = make_house(auth="keys")
    path, body, header = CALLS[format]
    async with closed.client as client:
        key = closed.services.keys.create("app", ("predict",))[1]
        reader = closed.services.keys.create("reader", ("read",))[1]
        assert (await client.post(path, **body, headers=header(key))).status_code == 200
        refused = [
            await client.post(path, **body, headers=given) for given in ({}, header("wrong"), header(reader))
        ]
    assert [response.status_code for response in refused] == [401, 401, 403]
    assert not any(response.headers["content-type"] == "application/problem+json" for response in refused)


@pytest.mark.parametrize("format", CALLS)
@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (Unusable("The source model cannot answer now.", retry_after=7.0), {503}),
        (BudgetExhausted("The cap is reached.", reason="budget_exhausted", scope="ep_1"), {402, 403}),
    ],
)
async def test_trouble_in_the_formats_own_words(
    pets: House, format: str, error: Exception, statuses: set[int]
) -> None:
    pets.predictor.error = error  # type: ignore[assignment]
    path, body, _ = CALLS[format]
    response = await pets.client.post(path, **body)
    assert response.status_code in statuses
    said = response.json()
    text = {
        "hf": lambda: said["error"],
        "oip": lambda: said["error"],
        "azure": lambda: said["message"],
        "clarifai": lambda: said["status"]["details"],
    }[format]()
    assert text.startswith(str(error))
    assert response.headers.get("retry-after") == ("7" if isinstance(error, Unusable) else None)


@pytest.mark.parametrize("format", CALLS)
async def test_large_images_pass(pets: House, format: str) -> None:
    """The edge lets images of some megabytes through on these paths."""
    big = np.random.default_rng(2).bytes(5_000_000)
    text = b64encode(big).decode()
    path, _, _ = CALLS[format]
    bodies: dict[str, dict[str, Any]] = {
        "clarifai": {"json": clarifai(text)},
        "oip": {"json": {"inputs": [tensor(data=[text])]}},
    }
    response: httpx.Response = await pets.client.post(path, **bodies.get(format, {"content": big}))
    assert response.status_code == 200
    assert pets.predictor.asked == [[big]]
