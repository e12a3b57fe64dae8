"""A running service: it leaks no secret, it ends in time, and readers do not disturb a job."""

from __future__ import annotations

import asyncio
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from service import Service, running_service
from stub_provider import Stub

SECRET = "canary-PROVIDER-5e1f0c9a"
VAULT = "canary-VAULT-77aa12bd90"


class Echo(Stub):
    """A provider that shouts the key it was given in every third error it makes."""

    async def _answer(self, request: web.Request, n: int) -> web.StreamResponse:
        given = request.headers["Authorization"]
        if n % 4 == 1:
            told = {"status": {"code": 90500, "description": f"bad {given}", "req_id": SECRET}}
            return web.json_response(told, status=500, headers={"X-Request-Id": SECRET, "X-Given": given})
        return await super()._answer(request, n)


@contextmanager
def serving(stub: Stub) -> Iterator[str]:
    loop, up, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with stub.serve():
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert up.wait(10)
    try:
        yield stub.url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def archive(folder: Path, per_class: int) -> Path:
    rng, path = np.random.default_rng(5), folder / "shapes.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for label, level in (("dark", 40), ("light", 200)):
            for n in range(per_class):
                pixels = np.clip(rng.normal(level, 25, (12, 12, 3)), 0, 255).astype(np.uint8)
                out = io.BytesIO()
                Image.fromarray(pixels).save(out, "PNG")
                zipped.writestr(f"{label}/{n}.png", out.getvalue())
    return path


def start_job(service: Service, url: str, folder: Path, per_class: int, **more: Any) -> dict[str, Any]:
    limits = {"requests_per_second": 500, "concurrency": 2, "max_batch": 4}
    connection = service.connect(url, SECRET, model={"model_id": "m"}, limits=limits)
    dataset = service.upload(archive(folder, per_class))
    return service.create(connection, dataset, method={"type": "baseline", "size": 32}, **more)


def test_canaries_are_in_no_log_no_answer_no_export_and_no_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = {
        "REPROG_AUTH": "keys", "REPROG_SECRET_KEY": VAULT, "REPROG_LOG_LEVEL": "DEBUG",
    }  # fmt: skip
    with serving(Echo()) as url, running_service(data, **settings) as service:
        admin = next(word for word in service.log().split() if word.startswith("rk_"))
        printed = service.log().count(admin)
        service.client.headers["authorization"] = f"Bearer {admin}"
        key = service.ok("POST", "/v1/keys", json={"name": "p", "scopes": ["predict"]})
        hook = service.ok("POST", "/v1/webhooks", json={"url": f"{url}/hook", "events": ["*"]})
        job = start_job(service, url, tmp_path, 30, publish={"name": "e"})
        done = service.wait(job)
        assert done["status"] == "succeeded", done
        seen = _everything(service, done, key["key"])
        service.client.post(
            "/login", data={"key": key["key"]}, headers={"origin": str(service.client.base_url)}
        )
        turned = service.ok("POST", f"/v1/webhooks/{hook['id']}/rotate")
        signing = [hook["secret"], turned["secret"]]
        secrets = [SECRET, VAULT, key["key"], *signing, *(one.removeprefix("whsec_") for one in signing)]
        service.stop()
        for name, content in seen.items():
            for secret in [*secrets, admin]:
                assert secret.encode() not in content, (name, secret)
        files = [path for path in data.rglob("*") if path.is_file()]
        assert {"reprog.sqlite", "serve.log"} <= {path.name for path in files}
        for path in files:
            content = path.read_bytes()
            for secret in secrets:
                assert secret.encode() not in content, (path.name, secret)
            assert content.count(admin.encode()) == (printed if path.name == "serve.log" else 0), path.name


def _everything(service: Service, job: dict[str, Any], predict_key: str) -> dict[str, bytes]:
    """What can be read of the service after a job."""
    here, connection = f"/v1/jobs/{job['id']}", f"/v1/connections/{job['connection_id']}"
    found: dict[str, bytes] = {}
    one = io.BytesIO()
    Image.new("RGB", (12, 12), (9, 9, 9)).save(one, "PNG")
    headers = {"authorization": f"Bearer {predict_key}"}
    for n in range(6):  # some of them meet the shouting
        answer = service.client.post(
            "/v1/endpoints/e/predict", content=one.getvalue() + bytes(n), headers=headers
        )
        found[f"predict {n}"] = answer.content + repr(answer.headers).encode()
    for n in range(5):
        answer = service.client.post(f"{connection}/test")
        found[f"test {n}"] = answer.content + repr(answer.headers).encode()
    for path in (
        here, f"{here}/events?limit=100", f"{here}/queries?limit=100", f"{here}/queries?format=csv",
        f"{here}/metrics", f"{here}/mapping", f"{here}/checkpoints", f"{here}/artifact", "/v1/keys",
        connection, f"{connection}/labels", "/v1/webhooks", "/v1/audit?format=csv", "/v1/audit", "/metrics",
        "/v1/usage", "/v1/usage?group_by=key", "/openapi.json", "/v1/endpoints", "/v1/jobs", "/v1/datasets",
    ):  # fmt: skip
        answer = service.client.get(path)
        assert answer.is_success, (path, answer.text)
        content = answer.content
        if path.endswith("/artifact"):
            with zipfile.ZipFile(io.BytesIO(content)) as zipped:
                content += b"".join(zipped.read(name) for name in zipped.namelist())
        found[path] = content + repr(answer.headers).encode()
    queries = found[f"{here}/queries?limit=100"]
    assert b"500" in queries  # the provider did shout
    return found


@pytest.mark.parametrize("running", [False, True])
def test_open_streams_and_a_running_job_do_not_hold_the_end_up(tmp_path: Path, running: bool) -> None:
    stub = Stub()
    stub.delay = lambda n: 0.3
    with serving(stub) as url, running_service(tmp_path / "data") as service:
        job = start_job(service, url, tmp_path, 60)
        if not running:
            service.ok("POST", f"/v1/jobs/{job['id']}/pause")
        ended: list[float] = []

        def follow() -> None:
            path = f"{service.client.base_url}/v1/jobs/{job['id']}/events/stream"
            with httpx.stream("GET", path, timeout=60, trust_env=False) as stream:
                for _ in stream.iter_bytes():
                    pass
            ended.append(time.monotonic())

        def wait() -> int:
            path = f"{service.client.base_url}/v1/jobs/{job['id']}"
            tag = httpx.get(path, trust_env=False).headers["etag"]
            asked = {"prefer": "wait=50", "if-none-match": tag}
            return httpx.get(path, headers=asked, timeout=60, trust_env=False).status_code

        with ThreadPoolExecutor(8) as pool:
            streams = [pool.submit(follow) for _ in range(6)]
            poll = pool.submit(wait)
            time.sleep(2)
            began = time.monotonic()
            assert service.process is not None
            service.process.terminate()
            service.process.wait(15)
            took = time.monotonic() - began
            for stream in streams:
                stream.result(5)
            assert poll.result(5) in (200, 304)
        assert took < 10
        assert len(ended) == 6
        assert service.process.returncode in (0, -15)
        assert "Traceback" not in service.log(), service.log()[-3000:]
        assert "ERROR" not in service.log(), service.log()[-3000:]


def readers_beside_a_job(folder: Path, seconds: float, per_class: int) -> int:
    """Eight readers of every kind of page while a job runs; returns their reads. No error is allowed."""
    stub = Stub()
    stub.delay = lambda n: 0.1  # so that the job lasts
    with serving(stub) as url, running_service(folder / "data") as service:
        money = {"amount": "50.00", "currency": "USD"}
        job = start_job(service, url, folder, per_class, limits={"max_queries": 20_000, "budget": money})
        until, reads = time.monotonic() + seconds, [0] * 8
        here = f"/v1/jobs/{job['id']}"
        paths = [here, f"{here}/events", f"{here}/queries", f"{here}/metrics", "/v1/jobs", "/metrics",
                 "/v1/usage", "/", f"/jobs/{job['id']}"]  # fmt: skip

        def read(n: int) -> None:
            with httpx.Client(base_url=service.client.base_url, timeout=30, trust_env=False) as client:
                while time.monotonic() < until:
                    answer = client.get(paths[(reads[n] + n) % len(paths)])
                    assert answer.status_code == 200, answer.text
                    reads[n] += 1

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(8)))
        while time.monotonic() < until + 1:
            time.sleep(0.1)
        job = service.ok("GET", here)
        assert job["status"] in ("running", "queued", "succeeded"), job
        assert job["cost"]["billable_queries"] > 0
        log = service.log()
        for word in ("locked", "Traceback", "ERROR"):
            assert word not in log, log[-3000:]
        return sum(reads)


def test_eight_readers_beside_a_job_meet_no_lock(tmp_path: Path) -> None:
    assert readers_beside_a_job(tmp_path, 6, 200) > 50


@pytest.mark.chaos
def test_eight_readers_beside_a_job_for_a_minute(tmp_path: Path) -> None:
    reads = readers_beside_a_job(tmp_path, 60, 2000)
    print(f"{reads} reads in 60 s beside a running job, no error")


def test_jobs_that_share_a_keys_budget_stop_at_it_and_go_on_when_it_is_raised(tmp_path: Path) -> None:
    stub = Stub()
    stub.delay = lambda n: 8.0 if n < 2 else 0.0  # both jobs are there before the first has spent its share
    with serving(stub) as url, running_service(tmp_path / "data", REPROG_AUTH="keys") as service:
        admin = next(word for word in service.log().split() if word.startswith("rk_"))
        service.client.headers["authorization"] = f"Bearer {admin}"
        limits = {"budget": {"amount": "0.0384", "currency": "USD"}}  # 32 queries; each job needs 20
        scopes = ["spend", "write", "read"]
        key = service.ok("POST", "/v1/keys", json={"name": "ci", "scopes": scopes, "limits": limits})
        service.client.headers["authorization"] = f"Bearer {key['key']}"
        account = {"requests_per_second": 500, "concurrency": 2, "max_batch": 4}
        connections = [service.connect(url, model={"model_id": "m"}, limits=account) for _ in "ab"]
        dataset = service.upload(archive(tmp_path, 10))
        body = {"method": {"type": "baseline", "size": 32}, "limits": {"max_queries": 24}}
        jobs = [service.create(connection, dataset, **body) for connection in connections]
        ended = [service.wait(job, "succeeded", "paused") for job in jobs]
        paused = [job for job in ended if job["status"] == "paused"]  # one, or both, as they took turns
        assert paused
        assert {job["status_reason"] for job in paused} == {"key_budget_exhausted"}
        service.client.headers["authorization"] = f"Bearer {admin}"
        path = f"/v1/keys/{key['id']}"
        spent = service.ok("GET", path)["spent"][0]["amount"]
        assert 0.024 < float(spent) <= 0.0384
        more = {"limits": {"budget": {"amount": "1.00", "currency": "USD"}}}
        service.ok("PATCH", path, json=more)
        for job in paused:
            service.ok("POST", f"/v1/jobs/{job['id']}/resume")
        for job in paused:
            service.wait(job, "succeeded")
        both = [service.ok("GET", f"/v1/jobs/{job['id']}")["cost"]["spent"]["amount"] for job in jobs]
        assert float(service.ok("GET", path)["spent"][0]["amount"]) == pytest.approx(sum(map(float, both)))
        service.client.delete(path)
        service.client.headers["authorization"] = f"Bearer {key['key']}"
        assert service.client.get("/v1/jobs").status_code == 401
