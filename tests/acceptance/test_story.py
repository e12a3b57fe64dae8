"""The main job as a user does it: by REST, against the sandbox, its own bill beside our ledger."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service, running_service

from app.jobs.samples import write_digits_zip
from app.sandbox.server import SandboxConfig, running

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running(SandboxConfig(size=128, rate_limit_rps=0)) as url:
        yield url


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "digits.zip"
    write_digits_zip(path, 250, seed=1)
    return path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path / "data") as service:
        yield service


def bill(sandbox: str, key: str) -> int:
    keys: dict[str, Any] = httpx.get(f"{sandbox}/bill", trust_env=False).json()["keys"]
    return keys[key]["billable_queries"] if key in keys else 0


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_from_upload_to_endpoint(
    tmp_path: Path, sandbox: str, archive: Path, database: str, request: pytest.FixtureRequest
) -> None:
    key = f"sandbox-story-{database}"
    url = {"REPROG_DATABASE_URL": request.getfixturevalue("postgres_url")} if database == "postgres" else {}
    with running_service(tmp_path / "data", **url) as service:
        dataset = service.upload(archive)
        connection = service.connect(sandbox, key)
        job = service.create(
            connection,
            dataset,
            method={"type": "auto", "size": 128},
            limits={"max_queries": 1500, "queries_per_prediction": 2},
            publish={"name": "digits"},
        )
        done = service.wait(job, "succeeded")
        assert bill(sandbox, key) == done["cost"]["billable_queries"] <= 1500
        metrics = done["metrics"]
        assert set(metrics["baselines"]) == {"majority", "mapping_only", "linear_head", "raw_pixels"}
        assert metrics["test"]["accuracy"] > metrics["baselines"]["majority"]["accuracy"] + 0.1
        assert metrics["verdict"]["sentence"]
        assert done["progress"]["fraction"] == 1.0

        items = service.ok("GET", f"/v1/datasets/{dataset['id']}/items", params={"split": "test"})["data"]
        item = items[0]
        image = service.client.get(f"/v1/datasets/{dataset['id']}/items/{item['n']}/image").content
        answer = service.client.post(
            "/v1/endpoints/digits/predict", content=image, headers={"content-type": "image/png"}
        )
        assert answer.status_code == 200, answer.text
        assert abs(sum(row["score"] for row in answer.json()) - 1) < 1e-6
        assert answer.headers["x-remote-queries"] == "0"  # its test pass paid for this very image
        assert bill(sandbox, key) == done["cost"]["billable_queries"]

        artifact = service.client.get(f"/v1/jobs/{job['id']}/artifact").content
        names = zipfile.ZipFile(io.BytesIO(artifact)).namelist()
        assert {"program.safetensors", "config.json", "README.md", "mapping.csv", "program.png"} <= set(names)
        events = service.ok("GET", f"/v1/jobs/{job['id']}/events", params={"limit": 100})["data"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize(
    "method",
    [
        {
            "type": "bar",
            "program": {"size": 128},
            "directions": 2,
            "batch_size": 10,
            "mapping": {"type": "linear"},
        },
        {"type": "zoo", "program": {"size": 128}, "mapping": {"type": "bayesian"}},
        {"type": "baseline", "size": 128},
    ],
    ids=lambda method: method["type"],
)
def test_every_kind_of_method_ends_with_an_agreeing_bill(
    service: Service, sandbox: str, archive: Path, method: dict[str, Any]
) -> None:
    key = f"sandbox-{method['type']}"
    connection, dataset = service.connect(sandbox, key), service.upload(archive)
    job = service.create(
        connection, dataset, method=method, limits={"max_queries": 900, "queries_per_prediction": 1}
    )
    done = service.wait(job, "succeeded")
    assert bill(sandbox, key) == done["cost"]["billable_queries"] <= 900
    assert done["metrics"]["test"]["accuracy"] > done["metrics"]["baselines"]["majority"]["accuracy"]


def test_a_killed_service_goes_on_and_learns_the_same_program(
    tmp_path: Path, sandbox: str, archive: Path
) -> None:
    programs: list[bytes] = []
    for killed in (False, True):
        key = f"sandbox-killed-{killed}"
        with running_service(tmp_path / f"data-{killed}") as service:
            connection, dataset = service.connect(sandbox, key), service.upload(archive)
            limits = {"max_queries": 1500, "queries_per_prediction": 2}
            job = service.create(connection, dataset, method={"type": "auto", "size": 128}, limits=limits)
            if killed:
                for queries in (60, 500):
                    wait_for_queries(service, job, queries)
                    service.kill()
                    service.start()
            done = service.wait(job, "succeeded")
            unknown = done["cost"].get("unknown_queries", 0)
            assert bill(sandbox, key) <= done["cost"]["billable_queries"] <= bill(sandbox, key) + unknown
            artifact = service.client.get(f"/v1/jobs/{job['id']}/artifact").content
            programs.append(zipfile.ZipFile(io.BytesIO(artifact)).read("program.safetensors"))
    assert programs[0] == programs[1]


def wait_for_queries(service: Service, job: dict[str, Any], queries: int) -> None:
    for _ in range(2000):
        found = service.ok("GET", f"/v1/jobs/{job['id']}")
        if found["cost"]["billable_queries"] >= queries:
            return
        assert found["status"] in {"queued", "running"}, found
    raise AssertionError("the job does not get on")


def test_pause_resume_cancel(service: Service, sandbox: str, archive: Path) -> None:
    httpx.post(f"{sandbox}/faults", json={"latency_ms": 50}, trust_env=False).raise_for_status()
    try:
        connection, dataset = service.connect(sandbox, "sandbox-pause"), service.upload(archive)
        job = service.create(connection, dataset)
        wait_for_queries(service, job, 1)
        assert service.ok("POST", f"/v1/jobs/{job['id']}/pause")["status"] in {"pausing", "paused"}
        paused = service.wait(job, "paused")
        assert paused["status_reason"]
        before = bill(sandbox, "sandbox-pause")
        assert service.client.post(f"/v1/jobs/{job['id']}/pause").status_code == 409
        assert bill(sandbox, "sandbox-pause") == before
        service.ok("POST", f"/v1/jobs/{job['id']}/resume")
        done = service.wait(job, "succeeded")
        assert bill(sandbox, "sandbox-pause") == done["cost"]["billable_queries"]
        other = service.create(connection, dataset, seed=8, method={"type": "views", "size": 128})
        assert service.ok("POST", f"/v1/jobs/{other['id']}/cancel")["status"] in {"cancelling", "cancelled"}
        service.wait(other, "cancelled")
    finally:
        httpx.delete(f"{sandbox}/faults", trust_env=False)
        httpx.post(f"{sandbox}/faults", json={"rate_limit_rps": 0}, trust_env=False)


def test_a_refused_key_pauses_the_job_with_its_reason(service: Service, sandbox: str, archive: Path) -> None:
    connection, dataset = service.connect(sandbox, "not-a-key"), service.upload(archive)
    job = service.create(connection, dataset)
    paused = service.wait(job, "paused")
    assert paused["status_reason"] == "provider_key_refused"
    assert paused["error"]["code"] == "provider_key_refused"
    assert paused["cost"]["billable_queries"] == 0
    service.ok("PATCH", f"/v1/connections/{connection['id']}", json={"secret": "sandbox-mended"})
    service.ok("POST", f"/v1/jobs/{job['id']}/resume")
    service.wait(job, "succeeded")


def test_a_budget_below_one_pass_is_refused_with_the_number_that_works(
    service: Service, sandbox: str, archive: Path
) -> None:
    connection, dataset = service.connect(sandbox), service.upload(archive)
    body = {"name": "x", "connection_id": connection["id"], "dataset_id": dataset["id"]}
    limits = {"max_queries": 2000, "budget": {"amount": "0.10", "currency": "USD"}}
    refused = service.client.post("/v1/jobs", json=body | {"limits": limits})
    assert refused.status_code == 422
    assert refused.json()["code"] == "budget_too_small"
    needed = refused.json()["hint"].split("(")[1].split(" ")[0]
    limits["budget"] = {"amount": needed, "currency": "USD"}
    assert service.client.post("/v1/jobs", json=body | {"limits": limits}).status_code == 201
