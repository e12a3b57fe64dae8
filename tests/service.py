"""`reprog serve` as a process of its own, and the few REST calls that acceptance tests repeat."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

OVER = {"succeeded", "failed", "cancelled"}
MODERATION = {"user_id": "clarifai", "app_id": "main", "model_id": "moderation-recognition-128"}


class Service:
    """One running service. `kill` is kill -9; `start` again on the same data."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder, self._settings = folder, settings
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def environment(self, **settings: str) -> dict[str, str]:
        """Of its processes."""
        ours = {
            "REPROG_DATA_DIR": str(self._folder),
            "REPROG_ALLOW_PRIVATE_HOSTS": "true",
            "REPROG_PORT": str(self.port),
            "REPROG_EXECUTOR_ID": f"test-{self.port}",
        }
        return os.environ | ours | self._settings | settings

    def start(self, **settings: str) -> None:
        with (self._folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve"],
                env=self.environment(**settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + 120  # importing alone takes half a minute on a busy machine
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(self.log()[-4000:])
            try:
                if self.client.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        self.kill()
        raise AssertionError("the service did not start\n" + self.log()[-4000:])

    def log(self) -> str:
        return (self._folder / "serve.log").read_text(errors="replace")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    # ---------------------------------------------------------------- REST

    def ok(self, method: str, path: str, **options: object) -> Any:
        response = self.client.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}\n{self.log()}"
        return response.json()

    def connect(self, base_url: str, key: str = "sandbox-test", **more: object) -> dict[str, Any]:
        body = {
            "name": "moderation",
            "provider": "clarifai",
            "base_url": base_url,
            "model": MODERATION,
            "secret": key,
            "price": {"per_1000": "1.20", "currency": "USD"},
            "limits": {"requests_per_second": 1000, "concurrency": 4, "max_batch": 32},
            **more,
        }
        return self.ok("POST", "/v1/connections", json=body)

    def upload(self, archive: Path, name: str = "digits", seed: int = 0) -> dict[str, Any]:
        return self.ok(
            "POST",
            "/v1/datasets",
            params={"name": name, "seed": seed},
            content=archive.read_bytes(),
            headers={"content-type": "application/zip"},
        )

    def create(self, connection: dict[str, Any], dataset: dict[str, Any], **more: object) -> dict[str, Any]:
        body = {
            "name": "test",
            "connection_id": connection["id"],
            "dataset_id": dataset["id"],
            "seed": 7,
            "method": {"type": "baseline", "size": 128},
            "limits": {"max_queries": 2000, "budget": {"amount": "5.00", "currency": "USD"}},
            **more,
        }
        return self.ok("POST", "/v1/jobs", json=body)

    def wait(self, job: dict[str, Any], *states: str, seconds: float = 200) -> dict[str, Any]:
        """The job once it is in one of `states` (default: over)."""
        until, wanted = time.monotonic() + seconds, set(states) or OVER
        while time.monotonic() < until:
            job = self.ok("GET", f"/v1/jobs/{job['id']}")
            if job["status"] in wanted:
                return job
            if job["status"] in OVER | {"paused"}:
                break
            time.sleep(0.1)
        words = f"job is {job['status']} ({job['status_reason']}, {job['error']})"
        raise AssertionError(f"{words}\n{self.log()[-3000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_service(folder: Path, **settings: str) -> Iterator[Service]:
    """A service that is up, and is stopped at the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder, **settings)
    service.start()
    try:
        yield service
    finally:
        service.stop()
        service.client.close()
