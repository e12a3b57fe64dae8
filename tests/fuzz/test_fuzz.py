"""schemathesis over the whole OpenAPI document, against a running service that asks for keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from service import running_service

HERE = Path(__file__).parent


def fuzz(folder: Path, seconds: int, examples: int, seed: int) -> str:
    """Its report; it has to find nothing."""
    with running_service(folder / "data", REPROG_AUTH="keys", REPROG_WORKER="false") as service:
        key = next(word for word in service.log().split() if word.startswith("rk_"))
        script = "from schemathesis.cli import schemathesis as run; run()"
        command = [
            sys.executable, "-c", script, "--config-file", str(HERE / "schemathesis.toml"), "run",
            f"{service.client.base_url}/openapi.json", "-H", f"Authorization: Bearer {key}",
            "-H", f"Prediction-Key: {key}",
            "--phases", "examples,coverage,fuzzing", "-n", str(examples), "--seed", str(seed),
            "--continue-on-failure", "--max-time", str(seconds), "--no-color",
            "--suppress-health-check", "all",
        ]  # fmt: skip
        hooks = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
        run = subprocess.run(
            command, cwd=folder, env=os.environ | hooks, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2000:]
        assert "Traceback" not in service.log(), service.log()[-3000:]
        selected = re.search(r"(\d+) selected / (\d+) total", run.stdout)
        assert selected is not None
        assert selected[1] == selected[2]
        assert "Authentication failed" not in run.stdout, run.stdout[-3000:]
    return run.stdout


def test_nothing_is_found_in_half_a_minute(tmp_path: Path) -> None:
    fuzz(tmp_path, seconds=30, examples=1, seed=7)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_nothing_is_found_in_long(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        print(fuzz(tmp_path / str(seed), seconds=600, examples=100, seed=seed)[-600:])
