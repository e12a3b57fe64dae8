"""`reprog` as a process beside a service: watching, detaching, a restart, heads for nothing, completion."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from service import Service, running_service

from app.jobs.samples import write_digits_zip
from app.sandbox.server import SandboxConfig, running

pytestmark = pytest.mark.timeout(240)
REPROG = [sys.executable, "-m", "app.cli"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running(SandboxConfig(size=128, rate_limit_rps=0)) as url:
        yield url


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    archive = tmp_path_factory.mktemp("shell") / "digits.zip"
    write_digits_zip(archive, 200)
    with running_service(tmp_path_factory.mktemp("service")) as service:
        service.connect(sandbox, "sandbox-shell")
        service.upload(archive)
        yield service


@pytest.fixture
def slow(sandbox: str) -> Iterator[None]:
    """A provider that takes its time: a job lasts some seconds."""
    httpx.post(f"{sandbox}/faults", json={"latency_ms": 400}, trust_env=False).raise_for_status()
    yield
    httpx.delete(f"{sandbox}/faults", trust_env=False).raise_for_status()
    httpx.post(f"{sandbox}/faults", json={"rate_limit_rps": 0}, trust_env=False).raise_for_status()


def surroundings(service: Service) -> dict[str, str]:
    return os.environ | {"REPROG_URL": f"http://127.0.0.1:{service.port}", "NO_PROXY": "127.0.0.1"}


def reprog(service: Service, *words: str) -> str:
    done = subprocess.run(
        [*REPROG, *words], env=surroundings(service), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def job_file(service: Service, folder: Path, name: str, seed: int) -> Path:
    [connection] = service.ok("GET", "/v1/connections")["data"]
    [data] = service.ok("GET", "/v1/datasets")["data"]
    body = {
        "name": name,
        "connection_id": connection["id"],
        "dataset_id": data["id"],
        "seed": seed,
        "method": {"type": "views", "size": 128},
        "limits": {"max_queries": 700, "queries_per_prediction": 2},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(body))
    return folder / "job.yaml"


def running_job(service: Service, name: str) -> dict[str, Any]:
    """The job of that name once it has asked something."""
    for _ in range(600):
        for job in service.ok("GET", "/v1/jobs")["data"]:
            if job["name"] == name and job["cost"]["billable_queries"]:
                return job
        time.sleep(0.05)
    raise AssertionError("it never asked")


def bill(sandbox: str) -> int:
    return httpx.get(f"{sandbox}/bill", trust_env=False).json()["keys"]["sandbox-shell"]["billable_queries"]


def test_ctrl_c_detaches_and_the_job_goes_on(service: Service, slow: None, tmp_path: Path) -> None:
    line = [*REPROG, "jobs", "create", "-f", str(job_file(service, tmp_path, "left", 1)), "--watch"]
    watch = subprocess.Popen(
        line, env=surroundings(service), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    job = running_job(service, "left")
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=30)
    assert watch.returncode == 0, err
    assert f"detached; the job goes on: reprog jobs watch {job['id']}" in err
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines
    assert not any("closing" in line for line in lines)
    assert service.ok("GET", f"/v1/jobs/{job['id']}")["status"] == "running"
    assert service.wait(job, "succeeded")["status_reason"] != "cancelled_by_user"


def test_ctrl_c_typed_at_a_terminal_detaches_from_the_bar(
    service: Service, slow: None, tmp_path: Path
) -> None:
    typed, seen = pty.openpty()
    watch = subprocess.Popen(
        [*REPROG, "jobs", "create", "-f", str(job_file(service, tmp_path, "typed", 2)), "--watch"],
        env=surroundings(service) | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=seen,
        stdout=seen,
        stderr=seen,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(seen)
    job = running_job(service, "typed")
    shown = read_until(typed, "queries")
    os.write(typed, b"\x03")
    shown += read_until(typed, "detached")
    assert watch.wait(30) == 0, shown
    os.close(typed)
    assert "running" in shown
    assert service.wait(job, "succeeded")


def read_until(terminal: int, words: str, seconds: float = 30) -> str:
    shown, until = "", time.monotonic() + seconds
    while words not in shown:
        assert time.monotonic() < until, shown
        shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_a_watch_outlives_a_restart_of_the_service(service: Service, slow: None, tmp_path: Path) -> None:
    line = [*REPROG, "jobs", "create", "-f", str(job_file(service, tmp_path, "restart", 3)), "--watch"]
    watch = subprocess.Popen(
        line, env=surroundings(service), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    job = running_job(service, "restart")
    service.kill()
    time.sleep(1.5)  # the watch looks, and nobody is there
    assert watch.poll() is None
    service.start()
    out, err = watch.communicate(timeout=120)
    assert watch.returncode == 0, err
    closing = json.loads(out.splitlines()[-1])
    assert (closing["closing"], closing["id"], closing["status"]) == (True, job["id"], "succeeded")


def test_other_heads_for_nothing_by_verb_and_by_form(service: Service, sandbox: str, tmp_path: Path) -> None:
    reprog(service, "jobs", "create", "-f", str(job_file(service, tmp_path, "heads", 4)), "--watch")
    job = next(one for one in service.ok("GET", "/v1/jobs")["data"] if one["name"] == "heads")
    ident, paid = job["id"], bill(sandbox)
    made = json.loads(
        reprog(service, "jobs", "evaluate", ident, "--mapping", "linear", "--fused", "--test", "--json")
    )
    assert (made["queries"], made["mapping"]["type"], made["fused"]) == (0, "linear", True)
    assert 0.2 < made["metrics"]["test"]["accuracy"] <= 1
    assert made["metrics"]["test"]["looks"] == 2
    found = json.loads(reprog(service, "jobs", "evaluation", ident, made["id"], "--json"))
    assert found == made
    listed = reprog(service, "jobs", "evaluations", ident)
    assert made["checkpoint_id"] in listed.replace("\n", "")

    home = {"origin": str(service.client.base_url).rstrip("/")}
    form = f"/jobs/{ident}/evaluations"
    answer = service.client.post(form, data={"head": "frequency"}, headers=home)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{ident}#heads")
    page = service.client.get(f"/jobs/{ident}").text
    rows = page.split('id="heads"')[1].split("<tbody>")[1].split("</tbody>")[0].split("</tr>")[:-1]
    assert ["frequency" in rows[0], "linear" in rows[1], len(rows)] == [True, True, 2]
    checkpoint = rows[0].split("checkpoint_id=")[1].split("#")[0]
    assert service.client.get(f"/jobs/{ident}?checkpoint_id={checkpoint}").is_success
    refused = service.client.post(form, data={"head": "frequency", "fused": "true"}, headers=home)
    assert refused.status_code == 409
    assert "cannot read pixels" in refused.text
    service.ok(
        "POST",
        "/v1/endpoints",
        json={"name": "head", "job_id": ident, "checkpoint_id": made["checkpoint_id"]},
    )
    image = service.client.get(f"/v1/datasets/{job['dataset_id']}/items/199/image").content
    told = service.client.post("/v1/endpoints/head/predict", content=image)
    assert (told.status_code, told.headers["x-remote-queries"]) == (200, "0")
    assert bill(sandbox) == paid


@pytest.mark.parametrize(
    ("shell", "asked", "offered"),
    [
        ("bash", {"COMP_WORDS": "reprog jobs eval", "COMP_CWORD": "2"}, ["evaluate", "evaluations"]),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "reprog jobs eval"}, ['"evaluate"', '"evaluations"']),
    ],
)
def test_completion(shell: str, asked: dict[str, str], offered: list[str]) -> None:
    program = [str(Path(sys.executable).with_name("reprog"))]

    def say(**more: str) -> str:
        environment = os.environ | more
        done = subprocess.run(
            program, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    script = say(_REPROG_COMPLETE=f"source_{shell}")
    assert "complete -o default" in script if shell == "bash" else "#compdef reprog" in script
    words = say(_REPROG_COMPLETE=f"complete_{shell}", **asked)
    assert all(one in words for one in offered), words
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=20)
