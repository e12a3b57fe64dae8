"""schemathesis over the whole OpenAPI document, against a running service that asks for keys. Some runs know
the ids of things that are there, a published program among them, and so get past 404."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from service import Service, running_service

from app.jobs.samples import write_digits_zip
from app.sandbox.server import SandboxConfig, running

HERE = Path(__file__).parent
OWN_KEY = re.compile(r"\brk_[\w-]+")


def fuzz(folder: Path, seconds: int, examples: int, seed: int, *, filled: bool) -> str:
    """Its report; it has to find nothing."""
    folder.mkdir(exist_ok=True)
    with (
        running(SandboxConfig(size=128, rate_limit_rps=0)) as sandbox,
        running_service(folder / "data", REPROG_AUTH="keys", REPROG_WORKER=str(filled)) as service,
    ):
        found = OWN_KEY.search(service.log())
        assert found is not None
        service.client.headers["authorization"] = f"Bearer {found[0]}"
        known = {"key_id": service.ok("POST", "/v1/keys", json={"name": "other", "scopes": ["read"]})["id"]}
        if filled:
            known |= fill(service, sandbox, folder)
            service.stop()
            service.start(REPROG_WORKER="false")
        (folder / "schemathesis.toml").write_text(configuration(service, known))
        run = subprocess.run(
            line(service, found[0], seconds, examples, seed), cwd=folder,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
        assert "Traceback" not in service.log(), service.log()[-3000:]
        selected = re.search(r"(\d+) selected / (\d+) total", run.stdout)
        assert selected is not None
        assert selected[1] == selected[2]
        assert "Authentication failed" not in run.stdout, run.stdout[-9000:]
    return run.stdout


def line(service: Service, key: str, seconds: int, examples: int, seed: int) -> list[str]:
    script = "from schemathesis.cli import schemathesis as run; run()"
    return [
        sys.executable, "-c", script, "--config-file", "schemathesis.toml", "run",
        f"{service.client.base_url}/openapi.json", "-H", f"Authorization: Bearer {key}",
        "-H", f"Prediction-Key: {key}",
        "--phases", "examples,coverage,fuzzing", "-n", str(examples), "--seed", str(seed),
        "--continue-on-failure", "--max-time", str(seconds), "--no-color",
        "--suppress-health-check", "all",
    ]  # fmt: skip


def fill(service: Service, sandbox: str, folder: Path) -> dict[str, str]:
    """A job that has learned, published: what path parameters may be."""
    write_digits_zip(folder / "digits.zip", 120)
    connection, data = service.connect(sandbox), service.upload(folder / "digits.zip")
    limits = {"max_queries": 500, "queries_per_prediction": 2}
    made = {"method": {"type": "views", "size": 128}, "limits": limits, "publish": {"name": "known"}}
    job = service.create(connection, data, **made)
    service.wait(job, "succeeded")
    other = service.ok("POST", f"/v1/jobs/{job['id']}/evaluations", json={"mapping": {"type": "linear"}})
    hook = service.ok("POST", "/v1/webhooks", json={"url": f"{sandbox}/healthz"})
    return {
        "connection_id": connection["id"],
        "dataset_id": data["id"],
        "job_id": job["id"],
        "evaluation_id": other["id"],
        "webhook_id": hook["id"],
        "name": "known",
    }


def configuration(service: Service, known: dict[str, str]) -> str:
    """Ours, with the known ids for all that reads or asks. What deletes gets ids made up, but for keys: the
    one that schemathesis itself comes with must stay."""
    blocks = [(HERE / "schemathesis.toml").read_text()]
    paths: dict[str, Any] = service.ok("GET", "/openapi.json")["paths"]
    for path, methods in paths.items():
        given = {name: known[name] for name in re.findall(r"{(\w+)}", path) if name in known}
        safe = [m for m in methods if m in ("get", "post") or "key_id" in given]
        if given and safe:
            names = json.dumps([f"{method.upper()} {path}" for method in safe])
            values = ", ".join(f'"path.{name}" = {json.dumps(value)}' for name, value in given.items())
            blocks.append(f"[[operations]]\ninclude-name = {names}\nparameters = {{ {values} }}\n")
    return "\n".join(blocks)


@pytest.mark.parametrize("filled", [False, True])
def test_nothing_is_found_in_half_a_minute(tmp_path: Path, filled: bool) -> None:
    fuzz(tmp_path, seconds=30, examples=1, seed=7, filled=filled)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_nothing_is_found_in_long(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        print(fuzz(tmp_path / str(seed), seconds=600, examples=100, seed=seed, filled=seed > 1)[-900:])
