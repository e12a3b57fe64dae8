"""`reprog demo`: the main job on real images, by REST alone, against the bundled sandbox.

A moderation model that knows five labels learns to read handwritten digits (1,797 real 8x8 scans, UCI
Optical Recognition of Handwritten Digits, CC BY 4.0). The service and the sandbox run as processes of
their own, as they would for a user.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from app.errors import ReprogError, Unusable
from app.jobs.samples import write_digits_zip
from app.remote import OVER, progress_note
from app.settings import Settings

ENDPOINT = "digits"
SANDBOX_PORT = 8900
KEY = "sandbox-demo"
CHECKED = 360  # test images sent to the finished endpoint
FILES_PER_REQUEST = 30
MODEL = {
    "user_id": "clarifai",
    "app_id": "main",
    "model_id": "moderation-recognition-128",
    "version_id": None,
}

console = Console(soft_wrap=True, highlight=False)


def run(queries: int) -> int:
    """The whole story. Returns the exit code: 0 only when the endpoint is right more often than always
    answering the commonest class, by three standard errors, and the bill equals the ledger."""
    started = time.monotonic()
    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sandbox = stack.enter_context(_process("sandbox", _port(SANDBOX_PORT), "/healthz", "--size", "128"))
        api = stack.enter_context(_process("serve", _port(settings.port), "/livez"))
        remote = stack.enter_context(httpx.Client(base_url=sandbox, timeout=30, trust_env=False))
        remote.post("/faults", json={"rate_limit_rps": 0}).raise_for_status()
        client = stack.enter_context(httpx.Client(base_url=api, timeout=120, trust_env=False))
        dataset = _upload(client)
        job = _create(client, sandbox, dataset, queries)
        job = _watch(client, job)
        if job["status"] != "succeeded":
            console.print(
                f"[red]The job ended as {job['status']}: {job['status_reason']} {job['error'] or ''}"
            )
            return 1
        bill = remote.get("/bill").json()
        right, asked = _check(client, dataset)
        agree = _print_result(job, bill, right, asked)
        _print_curl(client, settings, dataset, sandbox)
    console.print(f"Done in {time.monotonic() - started:.0f} s.")
    return 0 if agree and _beats(job, right, asked) else 1


def _beats(job: dict[str, Any], right: int, asked: int) -> bool:
    chance = job["metrics"]["baselines"]["majority"]["accuracy"]
    return right / asked > chance + 3 * math.sqrt(chance * (1 - chance) / asked)


def _port(wanted: int) -> int:
    """The port asked for, or a free one when somebody has it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unusable("No free port on 127.0.0.1.", hint="Stop another server first.")


@contextmanager
def _process(command: str, port: int, health: str, *more: str) -> Generator[str]:
    """`reprog COMMAND` on 127.0.0.1:port until the block ends. Yields its URL once it answers."""
    url = f"http://127.0.0.1:{port}"
    settings = {
        "REPROG_ALLOW_PRIVATE_HOSTS": "true",
        "REPROG_AUTH": "off",
        "REPROG_EXECUTOR_ID": "demo",
        "REPROG_LOG_LEVEL": "WARNING",
    }
    line = [sys.executable, "-m", "app.cli", command, "--host", "127.0.0.1", "--port", str(port), *more]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(line, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_up(child, url + health, command, log)
            yield url
        finally:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_until_up(child: subprocess.Popen[bytes], url: str, command: str, log: IO[bytes]) -> None:
    for _ in range(600):
        if child.poll() is not None:
            log.seek(0)
            raise Unusable(
                f"`reprog {command}` stopped at once: {log.read()[-2000:].decode(errors='replace')}"
            )
        try:
            if httpx.get(url, timeout=2, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise Unusable(f"`reprog {command}` did not answer within 60 s.")


def _ok(response: httpx.Response) -> Any:  # noqa: ANN401 (JSON)
    if response.is_error:
        problem = response.json()
        raise ReprogError(problem.get("detail", response.text), hint=problem.get("hint"))
    return response.json()


def _upload(client: httpx.Client) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "digits.zip"
        write_digits_zip(archive)
        headers = {"content-type": "application/zip"}
        params = {"name": "digits", "seed": 0}
        return _ok(client.post("/v1/datasets", params=params, content=archive.read_bytes(), headers=headers))


def _create(client: httpx.Client, sandbox: str, dataset: dict[str, Any], queries: int) -> dict[str, Any]:
    connection = _ok(
        client.post(
            "/v1/connections",
            json={
                "name": "sandbox moderation",
                "provider": "clarifai",
                "base_url": sandbox,
                "model": MODEL,
                "secret": KEY,
                "price": {"per_1000": "1.20", "currency": "USD"},
                "limits": {"requests_per_second": 1000, "concurrency": 4, "max_batch": 32},
            },
        )
    )
    body = {
        "name": "digits by a moderation model",
        "connection_id": connection["id"],
        "dataset_id": dataset["id"],
        "seed": 7,
        "method": {"type": "auto", "size": 128},
        "limits": {
            "max_queries": queries,
            "budget": {"amount": "20.00", "currency": "USD"},
            "queries_per_prediction": 4,
        },
        "publish": {"name": ENDPOINT},
    }
    quote = _ok(client.post("/v1/jobs/quote", json=body))
    cost = quote["cost"]["planned"]
    console.print(
        f"Plan: {quote['queries']['planned']} queries, {cost['amount']} {cost['currency']} at Clarifai's "
        "list price; the sandbox sends no invoice."
    )
    return _ok(client.post("/v1/jobs", json=body))


def _watch(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    columns = (BarColumn(16), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("learning", total=1.0, note="")
        while True:
            job = _ok(client.get(f"/v1/jobs/{job['id']}"))
            bar.update(task, completed=job["progress"].get("fraction", 0.0), note=progress_note(job))
            if job["status"] in OVER or job["status"] == "paused":
                return job
            time.sleep(0.5)


def _test_items(client: httpx.Client, dataset: dict[str, Any]) -> list[dict[str, Any]]:
    path, after, found = f"/v1/datasets/{dataset['id']}/items", None, list[dict[str, Any]]()
    while len(found) < CHECKED:
        page = _ok(
            client.get(path, params={"split": "test", "limit": 100, **({"after": after} if after else {})})
        )
        found += page["data"]
        after = page["next_cursor"]
        if not page["has_more"]:
            break
    return found[:CHECKED]


def _check(client: httpx.Client, dataset: dict[str, Any]) -> tuple[int, int]:
    """Ask the published endpoint for every test image. Returns (right, asked)."""
    items, right = _test_items(client, dataset), 0
    for start in range(0, len(items), FILES_PER_REQUEST):
        group = items[start : start + FILES_PER_REQUEST]
        path = f"/v1/datasets/{dataset['id']}/items"
        images = [client.get(f"{path}/{item['n']}/image").content for item in group]
        files = [("file", (f"{i}.png", image, "image/png")) for i, image in enumerate(images)]
        answers = _ok(client.post(f"/v1/endpoints/{ENDPOINT}/predict", files=files))
        right += sum(answer[0]["label"] == item["label"] for answer, item in zip(answers, group, strict=True))
    return right, len(items)


def _print_result(job: dict[str, Any], bill: dict[str, Any], right: int, asked: int) -> bool:
    metrics, cost = job["metrics"], job["cost"]
    billed = bill["billable_queries"]
    agree = billed == cost["billable_queries"]
    for name, title in (
        ("majority", "always the commonest class"),
        ("mapping_only", "label mapping, no program"),
        ("linear_head", "linear head on the API's scores"),
        ("raw_pixels", "model on the pixels, no API"),
    ):
        console.print(f"  {title:34} {_with_interval(metrics['baselines'][name])}")
    test = metrics["test"]
    console.print(f"  {'[bold]the program[/bold]':47} {_with_interval(test)} on {test['images']} test images")
    console.print(f"  {'the endpoint, over HTTP':34} {right / asked:.3f}  ({right} of {asked} right)")
    console.print(f"  {metrics['verdict']['sentence']}")
    price = 1200 * test["queries_per_prediction"]
    console.print(
        f"  {cost['billable_queries']} queries, {cost['spent']['amount']} {cost['spent']['currency']} by our "
        f"ledger; the sandbox's bill says {billed} queries: {'they agree' if agree else 'THEY DIFFER'}."
    )
    asks = test["queries_per_prediction"]
    count = f"{asks} {'query' if asks == 1 else 'queries'}"
    console.print(f"  One prediction asks {count}: {price / 1_000_000:.6f} USD.")
    return agree


def _with_interval(score: dict[str, Any]) -> str:
    low, high = score["ci95"]
    return f"{score['accuracy']:.3f}  (95 % interval {low:.3f} to {high:.3f})"


def _print_curl(client: httpx.Client, settings: Settings, dataset: dict[str, Any], sandbox: str) -> None:
    item = _test_items(client, dataset)[0]
    image = client.get(f"/v1/datasets/{dataset['id']}/items/{item['n']}/image").content
    path = settings.data_dir / "demo-digit.png"
    path.write_bytes(image)
    console.print(
        f"The endpoint is called [bold]{ENDPOINT}[/bold]. With `make serve` running (and `make sandbox`"
    )
    console.print(f"for images it has not seen yet), this asks it for {path}, a {item['label']}:\n")
    url = f"http://127.0.0.1:{settings.port}/v1/endpoints/{ENDPOINT}/predict"
    console.print(f"  curl -s -H 'Content-Type: image/png' --data-binary @{path} {url}\n")
    if not sandbox.endswith(str(SANDBOX_PORT)):
        console.print(f"(Port {SANDBOX_PORT} was taken: the sandbox of this run was at {sandbox}.)")
