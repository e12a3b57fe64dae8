"""Every provider of the table as a source model, over REST: connect, test, learn, publish, predict, and the
service's own bill agrees with the ledger to the query. The sandbox plays the services."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from test_fault_jobs import installation, make_place  # noqa: F401 - a fixture

from app.providers import PROVIDERS
from app.sandbox.classifiers import labels_of
from app.sandbox.formats import KINDS
from app.sandbox.server import SandboxConfig, running
from app.wiring import House

TRAFFIC_SIGNS = {"project_id": "43434343-4343-4343-8343-434343434343", "published_name": "traffic-signs"}

#: provider -> (model, path below the sandbox, the secret around a key, kind of scores as measured)
SERVICES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "clarifai": ({"model_id": "moderation-recognition"}, "", "{}", "probability"),
    "custom_vision": (TRAFFIC_SIGNS, "", "{}", "probability"),
    "google_vision": ({"feature": "safe_search"}, "", "{}", "likelihood"),
    "rekognition": ({"operation": "labels"}, "", "{}:word", "percent"),
    "azure_content_safety": ({}, "", "{}", "severity"),
    "openai_moderation": ({}, "", "{}", "independent"),
    "sightengine": ({"api_user": "u"}, "", "{}", "probability"),  # these classes happen to share out one
    "imagga": ({"categorizer_id": "moderation"}, "", "acc_1:{}", "percent"),
    "huggingface": ({"model": "moderation"}, "/hf", "{}", "probability"),
    "open_inference": (
        {"model_name": "moderation", "labels": list(labels_of("moderation"))}, "/oip", "{}", "probability"
    ),
    "http_json": (
        {"url": "/hf/models/moderation", "labels_path": "[].label", "scores_path": "[].score"}, "", "{}",
        "probability",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running(SandboxConfig(size=128, workers=2, rate_limit_rps=0)) as url:
        yield url


def pictures() -> bytes:
    """Two kinds that differ in colour and texture, enough for an ordinal score to move."""
    out, rng = io.BytesIO(), np.random.default_rng(3)
    with zipfile.ZipFile(out, "w") as archive:
        for label, low, high in (
            ("skin", (180, 120, 90), (255, 190, 160)),
            ("sky", (20, 60, 150), (90, 140, 255)),
        ):
            for n in range(12):
                cells = rng.integers(low, high, (2 + n % 5, 2 + n % 5, 3), np.uint8)
                file = io.BytesIO()
                Image.fromarray(cells).resize((128, 128), Image.Resampling.BICUBIC).save(file, "PNG")
                archive.writestr(f"{label}/{n}.png", file.getvalue())
    return out.getvalue()


def test_every_service_that_the_sandbox_plays_is_here() -> None:
    played = {kind.line for kind in KINDS} | {"clarifai", "custom_vision"}
    assert set(SERVICES) == played | {"http_json"}
    assert played <= set(PROVIDERS)


@pytest.mark.parametrize("name", SERVICES)
async def test_from_an_account_to_a_prediction(installation: House, sandbox: str, name: str) -> None:  # noqa: F811
    place = make_place(installation)
    model, path, secret, kind = SERVICES[name]
    key = f"sandbox-every-{name}"
    body = {
        "name": name, "provider": name, "base_url": sandbox + path, "model": model,
        "secret": secret.format(key),
        "price": {"per_1000": "1.20", "currency": "USD"},
        "limits": {"requests_per_second": 1000, "concurrency": 2, "max_batch": 8},
    }  # fmt: skip
    connection = (await place.ok("POST", "/v1/connections", json=body))["id"]
    tested = await place.ok("POST", f"/v1/connections/{connection}/test")
    assert (tested["queries"], tested["score_kind_measured"]) == (1, kind)
    assert tested["labels"]
    upload = pictures()
    data = await place.ok("POST", "/v1/datasets?name=every&seed=1", content=upload)
    endpoint = f"every-{name.replace('_', '-')}"
    method = {"type": "baseline", "size": 128}
    ident = await place.create(connection, dataset_id=data["id"], method=method, publish={"name": endpoint})
    job = await place.run(ident)
    assert job["status"] == "succeeded", job["error"]
    lines = (await place.ok("GET", f"/v1/jobs/{ident}/queries?limit=100"))["data"]
    assert {line["model_version"] for line in lines if line["outcome"] == "answered"} == {
        tested["model_version"]
    }
    fresh = io.BytesIO()
    Image.fromarray(np.full((128, 128, 3), (200, 150, 120), np.uint8)).save(fresh, "PNG")
    answer = await place.rest.post(f"/v1/endpoints/{endpoint}/predict", content=fresh.getvalue())
    assert answer.status_code == 200, answer.text
    assert sum(row["score"] for row in answer.json()) == pytest.approx(1)
    assert answer.headers["X-Remote-Queries"] == "1"
    bill = httpx.get(f"{sandbox}/bill", trust_env=False).json()["keys"][key]
    assert bill["billable_queries"] == place.house.ledger.cost(connection).queries_spent
    assert bill["billable_queries"] == 1 + job["cost"]["billable_queries"] + 1
    await place.house.predictor.close()
    await place.rest.aclose()
