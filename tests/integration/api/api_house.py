"""The application over real stores; only the engine, the predictor and the provider are stand-ins."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from PIL import Image

from app.api.deps import Services
from app.errors import BadRequest, ReprogError
from app.reprogramming import program as programs
from app.reprogramming.mapping import group_mapping
from app.reprogramming.program import Program
from app.reprogramming.transform import View
from app.storage.connections import ConnectionRecord
from app.storage.endpoints import Endpoints

CONNECTION = {
    "name": "nsfw",
    "provider": "clarifai",
    "base_url": "https://api.clarifai.com",
    "model": {"user_id": "clarifai", "app_id": "main", "model_id": "nsfw-recognition", "version_id": None},
    "secret": "pat-0123456789abcdef",
    "price": {"per_1000": "1.20", "currency": "USD"},
    "limits": {"requests_per_second": 10, "concurrency": 16, "max_batch": 32},
    "terms_acknowledged": True,
}
CHECKPOINT_STEP = 3


class Runner:
    """Remembers what it was asked to run."""

    def __init__(self) -> None:
        self.queued: list[str] = []

    def enqueue(self, job_id: str) -> None:
        self.queued.append(job_id)

    def launch(self, work: object, on_error: object) -> None: ...
    def cancel(self, job_id: str) -> None: ...
    def running(self) -> list[str]:
        return []

    def close(self, timeout: float = 10) -> None: ...


@dataclass
class FakePredictor:
    """Scores by the first byte of each file; raises `error` when there is one."""

    endpoints: Endpoints
    error: ReprogError | None = None
    asked: list[list[bytes]] = field(default_factory=list)

    async def reads(self, name: str) -> None:
        self.endpoints.live(name)

    async def predict(self, name: str, files: list[bytes], caller: object = None) -> SimpleNamespace:
        self.endpoints.live(name)
        if self.error is not None:
            raise self.error
        self.asked.append(files)
        rows = np.array([[0.2, 0.7, 0.1] if data[:1] == b"a" else [0.5, 0.1, 0.4] for data in files])
        return SimpleNamespace(
            labels=("cat", "dog", "owl"),
            scores=rows,
            queries=4 * len(files),
            cost_micros=4800 * len(files),
            currency="USD",
            seconds={"decode": 0.001, "remote": 0.02},
        )


@dataclass
class House:
    services: Services
    runner: Runner
    predictor: FakePredictor
    client: httpx.AsyncClient
    settings: SimpleNamespace

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        response = await self.client.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    async def connection(self, **changes: Any) -> dict[str, Any]:
        return await self.ok("POST", "/v1/connections", json=CONNECTION | changes)

    async def dataset(self, per_class: int = 20) -> dict[str, Any]:
        return await self.ok("POST", "/v1/datasets?name=shapes&seed=3", content=images_zip(per_class))

    async def job_body(self, **changes: Any) -> dict[str, Any]:
        connection, dataset = await self.connection(), await self.dataset()
        body = {"name": "j", "connection_id": connection["id"], "dataset_id": dataset["id"], "seed": 7}
        limits = {"max_queries": 5000, "budget": {"amount": "5.00", "currency": "USD"}}
        return body | {"method": {"type": "baseline"}, "limits": limits} | changes

    async def job(self, **changes: Any) -> dict[str, Any]:
        return await self.ok("POST", "/v1/jobs", json=await self.job_body(**changes))

    async def finished_job(self) -> dict[str, Any]:
        """A job that a worker has brought to its end."""
        job = await self.job()
        finish(self.services, job["id"])
        return await self.ok("GET", f"/v1/jobs/{job['id']}")


def finish(services: Services, job_id: str) -> str:
    """What a worker writes, from begin to end. Returns the checkpoint."""
    jobs, ledger = services.jobs, services.ledger
    held = jobs.begin(job_id)
    assert held is not None
    attempt = ledger.reserve(
        job_id, held.connection_id, fence=held.fence, images=24, price_micros=1200, purpose="probe"
    )
    ledger.settle(attempt, [], billed=24, unknown=0, outcome="answered", http_status=200, request_id="=r1")
    for step in range(1, CHECKPOINT_STEP + 1):
        metrics = {"val_accuracy": 0.5 + step / 10, "train_loss": 1.0 / step}
        jobs.save_state(
            job_id, held.fence, step, b"state", metrics=metrics, queries=8 * step, spent_micros=9600 * step,
            phase="learn",
        )  # fmt: skip
        checkpoint = jobs.save_program(
            job_id, held.fence, step, programs.to_bytes(a_program()), metrics=metrics, validation_images=40,
            queries=8 * step,
        )  # fmt: skip
    test = {"accuracy": 0.9, "ci95": [0.8, 0.95]}
    jobs.succeed(
        job_id, held.fence, checkpoint_id=checkpoint, metrics={"test": test, "baselines": {}},
        reason=None, endpoint=None, progress={"phase": "done", "fraction": 1.0},
    )  # fmt: skip
    return checkpoint


def a_program() -> Program:
    overlay = np.full((2, 2, 3), 0.3)
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.5, 0.5]])
    return Program(
        views=(View(size=16), View(size=16, scale=0.5, overlay=overlay)),
        mapping=group_mapping(weights),
        source_labels=("nsfw", "sfw"),
        target_labels=("dark", "light"),
        canonical=(8, 8),
        floor=1e-6,
    )


def png(level: int, side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(out, "PNG")
    return out.getvalue()


def images_zip(per_class: int = 20) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, base in (("dark", 0), ("light", 128)):
            for i in range(per_class):
                archive.writestr(f"{name}/{i}.png", png(base + i))
    return out.getvalue()


def check_connection(connection: ConnectionRecord) -> None:
    if connection.provider != "clarifai":
        raise BadRequest(
            f"There is no provider {connection.provider!r}.", code="unknown_provider", param="provider"
        )


async def probe(connection_id: str, payer: str | None, **_: object) -> dict[str, Any]:
    return {
        "labels": ["nsfw", "sfw"], "latency_ms": 12.5, "model_version": "v1", "score_kind": "probability",
        "queries": 1, "cost_micros": 1200,
    }  # fmt: skip


def is_problem(response: httpx.Response, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The problem document of a response, after every promise about its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    members = {"type", "title", "status", "detail", "instance", "code", "param", "hint", "request_id"}
    assert set(document) == members
    assert document["status"] == status
    assert document["code"] == code, document
    assert document["type"].endswith(code)
    assert document["instance"] == response.request.url.path
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["detail"]
    if param is not None:
        assert document["param"] == param, document
    return document
