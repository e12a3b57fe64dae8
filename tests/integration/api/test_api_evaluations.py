"""Another head on answers already paid: free, published like any other, refused with a price otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from api_house import House, finish, is_problem

from app.contracts import Images
from app.gateway.account import Answers
from app.reprogramming import program as programs


def brightness(_: str, images: Images) -> Answers:
    """A source model that has answered everything: it tells dark from light, and half of it is noise."""
    level = images.reshape(len(images), -1).mean(axis=1) / 255
    return Answers(("nsfw", "sfw"), np.stack([0.9 - 0.8 * level, 0.1 + 0.8 * level], axis=1))


async def learned(house: House) -> dict[str, Any]:
    job = await house.job()
    finish(house.services, job["id"])
    return await house.ok("GET", f"/v1/jobs/{job['id']}")


@pytest.fixture
def paid(house: House) -> House:
    services = replace(house.services, recall=brightness)
    house.client._transport.app.state.services = services  # type: ignore[attr-defined]
    return house


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"mapping": {"type": "linear"}, "test": True},
        {"mapping": {"type": "rbf"}, "fused": True},
        {"mapping": {"type": "bayesian", "top": 2}},
        {"mapping": {"type": "frequency", "labels_per_class": 1}},
        {"mapping": {"type": "random"}},
    ],
)
async def test_a_head_is_fitted_again_for_nothing(paid: House, body: dict[str, Any]) -> None:
    job = await learned(paid)
    made = await paid.ok("POST", f"/v1/jobs/{job['id']}/evaluations", json=body)
    assert made["queries"] == 0
    assert made["of"] == job["metrics"]["best"]["checkpoint_id"]
    assert made["fused"] is body.get("fused", False)
    low, high = made["metrics"]["val_ci95"]
    assert low <= made["metrics"]["val_accuracy"] <= high
    if made["mapping"]["type"] != "random":
        assert made["metrics"]["val_accuracy"] >= 0.5
    assert ("test" in made["metrics"]) is body.get("test", False)
    after = await paid.ok("GET", f"/v1/jobs/{job['id']}")
    assert after["cost"] == job["cost"]
    assert after["metrics"]["best"] == job["metrics"]["best"]  # the best stays the best
    program = programs.from_bytes(paid.services.jobs.program(made["checkpoint_id"]))
    assert program.pixel_features is made["fused"]
    assert len(program.views) == 2


async def test_a_new_head_is_listed_published_and_exported(paid: House) -> None:
    job = await learned(paid)
    path = f"/v1/jobs/{job['id']}/evaluations"
    one = await paid.ok("POST", path, json={"mapping": {"type": "linear"}})
    two = await paid.ok("POST", path, json={"mapping": {"type": "linear"}, "fused": True, "test": True})
    assert two["metrics"]["test"]["looks"] == 2  # the job's own was the first
    again = await paid.ok("POST", path, json={"test": True})
    assert again["metrics"]["test"]["looks"] == 3
    listed = await paid.ok("GET", f"{path}?limit=2")
    assert [line["id"] for line in listed["data"]] == [again["id"], two["id"]]
    assert listed["has_more"]
    assert await paid.ok("GET", f"{path}/{one['id']}") == one
    is_problem(await paid.client.get(f"{path}/ckpt_none"), 404, "not_found", "evaluation_id")
    body = {"name": "again", "job_id": job["id"], "checkpoint_id": two["checkpoint_id"]}
    assert (await paid.ok("POST", "/v1/endpoints", json=body))["checkpoint_id"] == two["checkpoint_id"]
    where = f"/v1/jobs/{job['id']}/artifact?checkpoint_id={two['checkpoint_id']}"
    artifact = (await paid.client.get(where)).content
    taken = await paid.ok(
        "POST", "/v1/artifacts/import", content=artifact, headers={"content-type": "application/zip"}
    )
    blob = paid.services.jobs.program(taken["metrics"]["best"]["checkpoint_id"])
    assert programs.from_bytes(blob).pixel_features


async def test_answers_never_bought_are_refused_with_their_price(house: House) -> None:
    job = await learned(house)
    path = f"/v1/jobs/{job['id']}/evaluations"
    problem = is_problem(await house.client.post(path, json={}), 409, "answers_missing")
    assert "64 queries, 0.076800 USD" in problem["detail"]  # 32 images of train and val, 2 views


async def test_what_cannot_be_fitted_is_refused(paid: House) -> None:
    job = await learned(paid)
    path = f"/v1/jobs/{job['id']}/evaluations"
    wide = {"mapping": {"type": "frequency", "labels_per_class": 9}}
    is_problem(await paid.client.post(path, json=wide), 422, "mapping_too_wide")
    pixels = {"mapping": {"type": "bayesian"}, "fused": True}
    is_problem(await paid.client.post(path, json=pixels), 409, "fused_needs_fit", "fused")
    is_problem(await paid.client.post(path, json={"checkpoint_id": "ckpt_x"}), 404, "not_found")
    is_problem(await paid.client.post(path, json={"head": "x"}), 422, "unknown_field")
