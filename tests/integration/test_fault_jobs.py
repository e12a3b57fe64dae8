"""F1 to F30 through whole jobs: how the job ends, what was billed, what its owner reads, and that every other
image has its answer. One installation is used by all; each case has a service, a connection and a job."""

from __future__ import annotations

import asyncio
import io
import json
import re
import zipfile
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from aiohttp import web
from fault_cases import CASES, SECRET, Case, Service, shares, tags
from gateway_house import FAST
from PIL import Image

from app import wiring
from app.api.application import create_app
from app.jobs.bench import Bench
from app.jobs.run import run_segment
from app.settings import Settings
from app.storage import tables
from app.storage.budget import Ledger
from app.storage.database import write
from app.wiring import House

IMAGES = 20  # of the data set, all splits together: what a job without a program asks
PRICE = 1_200


class Runner:
    """The test runs the segments itself."""

    def enqueue(self, job_id: str) -> None: ...
    def cancel(self, job_id: str) -> None: ...
    def running(self) -> list[str]:
        return []


@dataclass
class Place:
    """An installation as its users and its worker see it."""

    house: House
    bench: Bench
    rest: httpx.AsyncClient
    dataset: str = ""

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        response = await self.rest.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    async def connect(self, service: Service, batch: int = 1, **more: Any) -> str:
        body = {
            "name": service.name,
            "provider": service.name,
            "base_url": service.url,
            "model": service.model,
            "secret": SECRET,
            "price": {"per_1000": "1.20", "currency": "USD"},
            "limits": {"requests_per_second": 5000, "concurrency": 1, "max_batch": batch},
        }
        return (await self.ok("POST", "/v1/connections", json=body | more))["id"]

    async def create(self, connection: str, **more: Any) -> str:
        """A job; its id."""
        body = {
            "name": "job",
            "connection_id": connection,
            "dataset_id": await self.data(),
            "method": {"type": "baseline", "size": 16},
            "limits": {"max_queries": 500, "queries_per_prediction": 1},
        }
        return (await self.ok("POST", "/v1/jobs", json=body | more))["id"]

    async def data(self) -> str:
        if not self.dataset:
            self.dataset = (await self.ok("POST", "/v1/datasets?name=d&seed=1", content=pictures()))["id"]
        return self.dataset

    async def run(self, job: str) -> dict[str, Any]:
        """Work on it until it stops; the job as REST shows it."""
        while await run_segment(job, self.bench):
            pass
        return await self.ok("GET", f"/v1/jobs/{job}")

    async def thread(self, call: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(call)

    async def due(self, endpoint: str) -> None:
        """Its canary's time has come."""
        c = tables.canaries.c
        with write(self.house.engine) as connection:
            ident = self.house.endpoints.get(endpoint).id
            connection.execute(sa.update(tables.canaries).where(c.endpoint_id == ident).values(next_at=0.0))

    async def events(self, job: str, kind: str) -> list[dict[str, Any]]:
        found = await self.ok("GET", f"/v1/jobs/{job}/events?limit=100")
        return [event["data"] for event in found["data"] if event["type"] == kind]

    def booked(self, job: str, connection: str) -> int:
        """Queries spent; and nothing left open, and the account agrees with the job."""
        ledger: Ledger = self.house.ledger
        cost, account = ledger.cost(job), ledger.cost(connection)
        assert (cost.reserved, cost.queries_reserved) == (0, 0)
        lines = ledger.list_attempts(job, limit=10_000)
        assert sum(line.billed for line in lines) == cost.queries_spent == account.queries_spent
        assert cost.spent == PRICE * cost.queries_spent
        return cost.queries_spent


def pictures() -> bytes:
    out, rng = io.BytesIO(), np.random.default_rng(3)
    with zipfile.ZipFile(out, "w") as archive:
        for name, base in (("dark", 0), ("light", 128)):
            for n in range(IMAGES // 2):
                file = io.BytesIO()
                Image.fromarray(rng.integers(base, base + 100, (8, 8, 3), np.uint8)).save(file, "PNG")
                archive.writestr(f"{name}/{n}.png", file.getvalue())
    return out.getvalue()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    house = House(Settings(data_dir=folder, allow_private_hosts=True, secret_key="k"))  # type: ignore[arg-type]
    yield house
    house.engine.dispose()


_dataset: dict[Path, str] = {}  # of each installation


@pytest.fixture
async def place(installation: House, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Place]:
    monkeypatch.setattr(wiring, "Client", partial(wiring.Client, total_seconds=0.5))
    made = make_place(installation)
    made.dataset = _dataset.get(installation.settings.data_dir, "")
    async with made.rest:
        yield made
    _dataset[installation.settings.data_dir] = made.dataset


def make_place(house: House) -> Place:
    @asynccontextmanager
    async def gateway(job: str, connection: str, fence: int) -> AsyncGenerator[Any]:
        async with house.gateway(job, connection, fence, FAST, pin=True) as made:
            yield made

    bench = replace(house.bench(), gateway=gateway, stopping=lambda: False)
    app = create_app(replace(house.services(), runner=Runner()))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    return Place(
        house, bench, httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", trust_env=False)
    )


def reads(job: dict[str, Any], paused: dict[str, Any], case: Case) -> None:
    """What the owner of a job that stopped finds: a stable reason, the provider's words, what to do."""
    code = case.error.code if case.error else ""
    assert (job["status"], job["status_reason"]) == ("paused", code)
    assert case.text in job["error"]["detail"]
    assert job["error"]["hint"]
    assert paused == {"reason": code, "error": job["error"]}
    assert "a-secret-word" not in str(job)


@pytest.mark.parametrize("name", CASES)
async def test_fault_in_a_job(place: Place, name: str) -> None:
    case = CASES[name]
    service = Service(case.service, list(case.script))
    size = 80 if case.service == "rekognition" else 16
    async with service.serve():
        connection = await place.connect(service, batch=case.images if case.batched else 1)
        ident = await place.create(connection, method={"type": "baseline", "size": size})
        job = await place.run(ident)
        if case.error is not None:
            [paused] = await place.events(ident, "job.paused")
            reads(job, paused, case)
            assert place.booked(ident, connection) == case.spent
            await place.ok("POST", f"/v1/jobs/{ident}/resume")
            job = await place.run(ident)
    assert job["status"] == "succeeded", job["error"]
    extra = 0 if case.error else case.spent - (case.images - case.rejected)
    assert place.booked(ident, connection) == IMAGES - case.rejected + extra
    left_out = job["metrics"].get("left_out", [])
    assert len(left_out) == case.rejected
    for line in left_out:
        assert line["file"]
        assert line["code"] == "image_rejected"
        assert line["detail"]
    told = await place.events(ident, "job.images_left_out")
    assert sum(event["count"] for event in told) == case.rejected


def test_every_fault_goes_through_a_job() -> None:
    """F1 to F30: a case of the table, or tests named after it here and in `test_fault_images`."""
    here = Path(__file__).parent
    text = "".join((here / f"test_fault_{part}.py").read_text() for part in ("jobs", "images"))
    named = "".join(re.findall(r"def test_((?:f\d+_)+)", text)) + "".join(f"f{name[1:]}" for name in CASES)
    assert {int(number) for number in re.findall(r"f(\d+)[_ ]", named)} == set(range(1, 31))


async def test_f10_a_service_that_stalls(place: Place) -> None:
    """After some images nothing more is answered: the job ends its waiting, and goes on from the store."""
    service = Service("custom_vision", [])
    async with service.serve():
        connection = await place.connect(service)
        ident = await place.create(connection)
        service.script = [service.good] * 8 + ["stall"] * 100
        job = await place.run(ident)
        assert (job["status"], job["status_reason"]) == ("paused", "provider_down")
        assert job["error"]["code"] == "provider_timeout"
        assert job["error"]["hint"]
        spent = place.booked(ident, connection)
        unknown = job["cost"]["unknown_queries"]
        assert spent == 8 + unknown
        assert 1 <= unknown <= 20
        service.script.clear()
        sent = len(service.bodies)
        await place.ok("POST", f"/v1/jobs/{ident}/resume")
        job = await place.run(ident)
    assert job["status"] == "succeeded"
    assert len(service.bodies) - sent == IMAGES - 8  # what was answered is not bought again
    assert place.booked(ident, connection) == IMAGES + unknown


async def test_f12_f13_images_that_do_not_fit(place: Place) -> None:
    """Nothing is sent, nothing is billed, and the owner reads why."""
    service = Service("rekognition", [])
    async with service.serve():
        connection = await place.connect(service)
        ident = await place.create(connection)  # images of 16 pixels, for a service that takes 80
        job = await place.run(ident)
    assert (job["status"], job["status_reason"]) == ("failed", "classes_unanswered")
    assert "80 pixels" in job["metrics"]["left_out"][0]["detail"]
    assert service.bodies == []
    assert place.booked(ident, connection) == 0


async def test_f18_f28_answers_belong_to_one_connection_and_stay(place: Place) -> None:
    """A second job on the account costs nothing; another account at another address pays for its own."""
    service, other = Service("custom_vision", []), Service("custom_vision", [])
    async with service.serve(), other.serve():
        first = await place.connect(service)
        for queries in (IMAGES, 0):
            job = await place.run(await place.create(first))
            assert job["cost"]["billable_queries"] == queries
        twin = await place.connect(other)
        job = await place.run(await place.create(twin))
        assert job["cost"]["billable_queries"] == IMAGES
    assert (len(service.bodies), len(other.bodies)) == (IMAGES, IMAGES)


async def test_f19_the_version_changes(place: Place) -> None:
    """The job rests before it learns from two models at once; resumed, it asks everything of the new one."""

    def newer(body: bytes) -> web.Response:
        [p] = shares("custom_vision", body)
        return web.json_response(tags(p, 1 - p, version="v2"))

    service = Service("custom_vision", [])
    async with service.serve():
        connection = await place.connect(service)
        ident = await place.create(connection)
        service.script = [service.good] * 5 + [newer] * 100
        job = await place.run(ident)
        assert (job["status"], job["status_reason"]) == ("paused", "source_model_changed")
        assert "v1" in job["error"]["detail"]
        assert "v2" in job["error"]["hint"]
        assert place.booked(ident, connection) == 6
        await place.ok("POST", f"/v1/jobs/{ident}/resume")
        job = await place.run(ident)
    assert job["status"] == "succeeded"
    assert job["metrics"]["model_version"] == "v2"
    assert place.booked(ident, connection) == 5 + IMAGES  # the sixth answer was the new one's already


async def test_f23_f24_one_image_per_request_and_one_base64(place: Place) -> None:
    """Whatever the account's limits say of batches."""
    service = Service("openai_moderation", [])
    async with service.serve():
        connection = await place.connect(service, batch=16)
        job = await place.run(await place.create(connection))
    assert job["status"] == "succeeded"
    assert len(service.bodies) == IMAGES
    for body in service.bodies:
        [item] = json.loads(body)["input"]
        head, _, text = item["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert b64decode(text, validate=True).startswith(b"\x89PNG")
