"""The test of a connection against the sandbox: what one query tells, and what a few more find out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service, running_service

from app.sandbox.server import SandboxConfig, running


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running(SandboxConfig(size=128, workers=1, rate_limit_rps=0)) as url:
        yield url


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), REPROG_WORKER="false") as service:
        yield service


@pytest.fixture
def faults(sandbox: str) -> Iterator[Any]:
    def put(**switches: object) -> None:
        httpx.delete(f"{sandbox}/faults", trust_env=False).raise_for_status()
        httpx.post(f"{sandbox}/faults", json=switches, trust_env=False).raise_for_status()

    yield put
    put()


@pytest.fixture(scope="module")
def connection(service: Service, sandbox: str) -> str:
    return service.connect(sandbox, options={"input_size": 128})["id"]


def test_one_query_tells(service: Service, connection: str, sandbox: str) -> None:
    httpx.post(f"{sandbox}/bill/reset", trust_env=False)
    found = service.ok("POST", f"/v1/connections/{connection}/test")
    assert found["queries"] == 1
    assert found["cost"] == {"amount": "0.001200", "currency": "USD"}
    assert len(found["labels"]) == 5
    assert (found["score_kind"], found["score_kind_measured"]) == ("probability", "probability")
    assert (found["truncated"], found["decimals"]) == (False, None)
    assert found["model_version"]
    assert abs(found["clock_skew_seconds"]) <= 1
    assert found["latency_ms"] > 0
    assert "seems_to_resize" not in found or found["seems_to_resize"] is None
    assert httpx.get(f"{sandbox}/bill", trust_env=False).json()["billable_queries"] == 1


def test_rounded_and_cut_scores_are_seen(service: Service, connection: str, faults: Any) -> None:
    faults(quantise_decimals=2, top_k=2)
    found = service.ok("POST", f"/v1/connections/{connection}/test")
    assert found["decimals"] <= 2
    assert (found["truncated"], found["labels_answered"]) == (True, 2)


@pytest.mark.parametrize(
    ("switches", "resizes", "compresses", "queries"),
    [
        ({}, False, False, 4),
        ({"server_resize": 64}, True, None, 4),
        ({"jpeg_recompress_q": 70}, None, True, 5),
        ({"quantise_decimals": 3, "server_resize": 64}, None, None, 4),
        ({"score_noise": 0.01}, None, None, 4),
    ],
)
def test_probes(
    service: Service, connection: str, sandbox: str, faults: Any, switches: dict[str, float], resizes: Any,
    compresses: Any, queries: int,
) -> None:  # fmt: skip
    faults(**switches)
    httpx.post(f"{sandbox}/bill/reset", trust_env=False)
    found = service.ok("POST", f"/v1/connections/{connection}/test", json={"probes": True})
    bill = httpx.get(f"{sandbox}/bill", trust_env=False).json()
    assert found["queries"] == bill["billable_queries"] == queries, found
    assert (found["seems_to_resize"], found["seems_to_recompress"]) == (resizes, compresses), found


def test_repeats_tell_whether_answers_vary(service: Service, connection: str, faults: Any) -> None:
    """F28: past the cache, which would hide it."""
    path = f"/v1/connections/{connection}/test"
    found = service.ok("POST", path, json={"repeats": 3})
    assert (found["queries"], found["repeats"]) == (4, {"queries": 3, "spread": 0.0})
    faults(score_noise=0.2)
    assert service.ok("POST", path, json={"repeats": 3})["repeats"]["spread"] > 1e-3


def test_doctor(service: Service, connection: str, sandbox: str, tmp_path: Path) -> None:
    """It lists what it would ask, and asks when it is told to."""
    refused = service.connect(sandbox, key="stranger", name="broken")
    settings = service.environment()

    def doctor(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", "doctor", *options]
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    told = doctor()
    assert told.returncode == 0, told.stdout + told.stderr
    assert connection in told.stdout.replace("\n", "")
    assert "0.001200 USD" in told.stdout.replace("\n", " ")
    asked = doctor("--connections")
    assert asked.returncode == 3
    lines = " ".join(asked.stdout.split())
    assert "5 labels" in lines
    assert refused["id"] in asked.stdout.replace("\n", "")
    assert "ILL" in lines
