"""A canary tells when the source model behind an endpoint answers differently: over REST, in a worker."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest
from fault_cases import Service, tags
from test_fault_jobs import Place, installation, place  # noqa: F401 - fixtures

from app.jobs.canary import Canary, moved_by


@dataclasses.dataclass
class Moody(Service):
    """`shift` is added to every score; `version` is what it says."""

    shift: float = 0.0
    version: str = "v1"

    def good(self, body: bytes) -> Any:
        from aiohttp import web
        from fault_cases import shares

        p = min(1.0, max(0.0, 0.8 * shares(self.name, body)[0] + self.shift))
        return web.json_response(tags(p, 1 - p, version=self.version))


@pytest.fixture
async def published(place: Place) -> AsyncGenerator[tuple[Place, Moody]]:  # noqa: F811
    service = Moody("custom_vision", [])
    async with service.serve():
        connection = await place.connect(service)
        job = await place.create(connection, publish={"name": "watched"})
        assert (await place.run(job))["status"] == "succeeded"
        yield place, service


async def test_a_canary(published: tuple[Place, Moody]) -> None:
    place, service = published  # noqa: F811
    house, path = place.house, "/v1/endpoints/watched"
    worker = Canary(house.endpoints, house.jobs, house._serving_gateway)
    plain = await place.ok("GET", path)
    assert (plain["status"], plain["canary"]) == ("ok", None)
    settings = {"queries": 3, "every_seconds": 1, "budget": {"amount": "0.018000", "currency": "USD"}}
    made = await place.ok("PATCH", path, json={"canary": settings})
    assert made["canary"]["state"] == "waiting"
    asked = len(service.bodies)

    async def run() -> dict[str, Any]:
        await place.due("watched")
        assert await place.thread(worker.look) == ["watched"]
        return await place.ok("GET", path)

    first = await run()
    assert (first["status"], first["canary"]["state"]) == ("ok", "ok")
    assert len(service.bodies) == asked + 3
    assert first["canary"]["cost"]["spent"]["amount"] == "0.003600"
    assert await place.thread(worker.look) == []  # not before its time
    same = await run()
    assert same["canary"]["last"]["moved"] == 0
    assert len(service.bodies) == asked + 6  # past the cache
    assert service.bodies[-3:] == service.bodies[-6:-3]  # the same fixed queries

    service.shift, service.version = 0.1, "v2"
    moved = await run()
    assert moved["status"] == "degraded"
    last = moved["canary"]["last"]
    assert last["moved"] == pytest.approx(0.1, abs=1e-6)
    assert (last["model_version_before"], last["model_version"]) == ("v1", "v2")
    [told] = await place.events(moved["job_id"], "endpoint.degraded")
    assert told["endpoint"] == "watched"

    service.shift = 0.0
    back = await run()
    assert back["status"] == "ok"
    assert await place.events(moved["job_id"], "endpoint.recovered")

    service.shift = 0.1
    assert (await run())["status"] == "degraded"
    spent = await run()  # the cap: nothing is sent, the state stays, and the reason is told
    assert spent["canary"]["cost"]["spent"]["amount"] == "0.018000"
    assert len(service.bodies) == asked + 15
    assert spent["canary"]["last"]["error"]["code"] == "budget_exhausted"
    assert spent["status"] == "degraded"

    anew = await place.ok("PATCH", path, json={"canary": settings | {"budget": None}})
    assert anew["canary"]["state"] == "waiting"
    assert (await run())["status"] == "ok"  # as it answers now is what is compared with
    assert (await place.ok("PATCH", path, json={"canary": None}))["canary"] is None
    assert await place.thread(worker.look) == []
    assert (await place.rest.delete(path)).status_code == 204


def test_a_label_left_out_is_below_the_lowest() -> None:
    assert moved_by({"a": 0.9, "b": 0.1}, {"a": 0.9}) == 0
    assert moved_by({"a": 0.9}, {"a": 0.85, "c": 0.95}) == pytest.approx(0.05)
    assert moved_by({}, {"a": 0.5}) == 0.5
    assert np.isclose(moved_by({"a": 1.0}, {"b": 1.0}), 0.0)
