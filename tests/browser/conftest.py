from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from service import Service, free_port, running_service
from stage import FLAGS, MISSING, first_key

from app.jobs.samples import write_digits_zip


def _missing(what: str) -> None:
    message = f"NOT TESTED IN A BROWSER: {what}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")  # while it runs there is an event loop, which no asynchronous test stands
def browser() -> Iterator[Any]:
    chromium = os.environ.get("REPROG_TEST_CHROMIUM") or shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("pip install playwright")
    if chromium is None:
        _missing("apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[str]:
    port = free_port()
    line = [sys.executable, "-m", "app.cli", "sandbox", "--port", str(port), "--size", "128"]
    child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/healthz", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        httpx.post(f"{url}/faults", json={"rate_limit_rps": 0}, trust_env=False).raise_for_status()
        yield url
    finally:
        child.terminate()
        child.wait(15)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for keys."""
    folder: Path = tmp_path_factory.mktemp("service")
    with running_service(folder, REPROG_AUTH="keys") as running:
        running.client.headers["authorization"] = f"Bearer {first_key(running)}"
        yield running


@pytest.fixture(scope="session")
def filled(service: Service, sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A finished job with two views, a finished one without, one that is paused, an endpoint: their pages by
    name."""
    archive = tmp_path_factory.mktemp("data") / "digits.zip"
    write_digits_zip(archive, 300)
    connection, data = service.connect(sandbox), service.upload(archive)
    service.ok("POST", f"/v1/connections/{connection['id']}/test")
    limits = {
        "max_queries": 900,
        "budget": {"amount": "5.00", "currency": "USD"},
        "queries_per_prediction": 2,
    }
    views = {"method": {"type": "views", "size": 128}, "limits": limits, "publish": {"name": "two-views"}}
    first = service.create(connection, data, name="Two views", **views)
    second = service.create(connection, data, name="No program")
    third = service.create(connection, data, name="Resting", **(views | {"publish": None, "seed": 8}))
    service.ok("POST", f"/v1/jobs/{third['id']}/pause")
    hook = service.ok("POST", "/v1/webhooks", json={"url": f"{sandbox}/healthz", "name": "shop"})
    service.ok("POST", f"/v1/webhooks/{hook['id']}/test")
    for job in (first, second):
        service.wait(job)
    c, d, a, b = connection["id"], data["id"], first["id"], second["id"]
    chosen = f"connection_id={c}&dataset_id={d}"
    return {
        "overview": "/",
        "jobs": "/jobs",
        "job": f"/jobs/{a}",
        "job-baseline": f"/jobs/{b}",
        "job-paused": f"/jobs/{third['id']}",
        "job-mapping": f"/jobs/{a}/mapping",
        "job-strip": f"/jobs/{a}/strip",
        "job-reliability": f"/jobs/{a}/reliability",
        "compare": f"/compare?job={a}&job={b}",
        "compare-images": f"/compare/images?job={a}&job={b}",
        "datasets": "/datasets",
        "dataset": f"/datasets/{d}",
        "endpoints": "/endpoints",
        "endpoint": "/endpoints/two-views",
        "connections": "/connections",
        "connection": f"/connections/{c}",
        "new-1-connection": "/new",
        "new-2-data": f"/new/data?{chosen}",
        "new-3-method": f"/new/method?{chosen}",
        "new-4-review": f"/new/review?{chosen}&name=again&method=baseline&max_queries=600&budget=2.00",
        "usage": "/usage?group_by=job",
        "keys": "/keys",
        "webhooks": "/webhooks",
        "webhook": f"/webhooks/{hook['id']}",
        "audit": "/audit",
        "reference": "/docs",
        "missing": MISSING,
    }
