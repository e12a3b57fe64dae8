"""The source model changes its version while a job learns from it: seen over REST, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service import Service, running_service

from app.jobs import samples
from app.sandbox.server import SandboxConfig, running

PRICE = 1_200


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running(SandboxConfig(size=128, workers=2, rate_limit_rps=0)) as url:
        yield url


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("drift")) as service:
        yield service


def flip(sandbox: str, after: int) -> None:
    httpx.delete(f"{sandbox}/faults", trust_env=False).raise_for_status()
    given = {"version_flip_after_n": after}
    httpx.post(f"{sandbox}/faults", json=given, trust_env=False).raise_for_status()


@pytest.mark.parametrize("method", ["views", "race"])
def test_a_changed_model_pauses_the_job(service: Service, sandbox: str, tmp_path: Path, method: str) -> None:
    archive = tmp_path / "squares.zip"
    samples.write_squares_zip(archive, 60, 1, side=12)
    # The head of a model before and after differs; the probe is over by then, and learning has begun.
    flip(sandbox, 70)
    connection = service.connect(sandbox, name=method, options={"input_size": 128})
    dataset = service.upload(archive, name=method)
    options = {"views": {"views": 4}, "race": {"candidates": 4, "images": 20}}[method]
    job = service.create(
        connection, dataset, method={"type": method, "size": 128, **options},
        limits={"max_queries": 1500, "queries_per_prediction": 2},
    )  # fmt: skip
    job = service.wait(job, "paused", "succeeded")
    assert (job["status"], job["status_reason"]) == ("paused", "source_model_changed"), job
    error = job["error"]
    old, new = error["detail"].split("from ")[1].rstrip(".").split(" to ")
    assert old != new
    again = sum(dataset["counts"][split][name] for split in ("train", "val") for name in dataset["classes"])
    assert new in error["hint"]
    assert f"up to {again} queries, {again * PRICE / 1e6:.6f} USD" in error["hint"]
    events = service.ok("GET", f"/v1/jobs/{job['id']}/events?limit=100")["data"]
    [told] = [event["data"] for event in events if event["type"] == "job.paused"]
    assert told == {"reason": "source_model_changed", "error": error}
    known = service.ok("GET", f"/v1/connections/{connection['id']}")
    assert known["model_version"] == new

    service.ok("POST", f"/v1/jobs/{job['id']}/resume")
    job = service.wait(job, "succeeded")
    assert job["metrics"]["model_version"] == new
    assert job["error"] is None
    lines = service.ok("GET", f"/v1/jobs/{job['id']}/queries?limit=100")["data"]
    answered = [line["model_version"] for line in lines if line["outcome"] == "answered"]
    assert [version for n, version in enumerate(answered) if version not in answered[:n]] == [old, new]
    bill = httpx.get(f"{sandbox}/bill", trust_env=False).json()
    assert bill["billable_queries"] >= job["cost"]["billable_queries"]


def test_a_change_that_somebody_else_saw(service: Service, sandbox: str, tmp_path: Path) -> None:
    """Between two segments of the job the connection test is answered by the new version: the job stops all
    the same, before it buys anything of it."""
    httpx.delete(f"{sandbox}/faults", trust_env=False).raise_for_status()
    archive = tmp_path / "squares.zip"
    samples.write_squares_zip(archive, 60, 2, side=12)
    connection = service.connect(sandbox, name="shared", options={"input_size": 128})
    limits = {"requests_per_second": 20, "concurrency": 1, "max_batch": 2}
    service.ok("PATCH", f"/v1/connections/{connection['id']}", json={"limits": limits})
    dataset = service.upload(archive, name="shared")
    job = service.create(connection, dataset, method={"type": "views", "size": 128, "views": 4})
    until_learning(service, job)
    service.ok("POST", f"/v1/jobs/{job['id']}/pause")
    job = service.wait(job, "paused")
    spent = job["cost"]["billable_queries"]
    flip(sandbox, 0)
    service.ok("POST", f"/v1/connections/{connection['id']}/test")
    service.ok("POST", f"/v1/jobs/{job['id']}/resume")
    job = service.wait(job, "paused")
    assert job["status_reason"] == "source_model_changed"
    assert job["cost"]["billable_queries"] == spent


def until_learning(service: Service, job: dict[str, object]) -> None:
    for _ in range(600):
        found = service.ok("GET", f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=1"})
        if found["metrics"].get("model_version"):
            return
        assert found["status"] in ("queued", "running"), found
    raise AssertionError(found)
