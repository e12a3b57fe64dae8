from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from api_house import House, finish, is_problem

MEMBERS = {
    "id", "object", "name", "status", "status_reason", "created_at", "started_at", "finished_at",
    "connection_id", "dataset_id", "seed", "method", "limits", "metadata", "progress",
    "cost", "metrics", "error", "links",
}  # fmt: skip


async def test_quote_spends_and_stores_nothing(house: House) -> None:
    quote = await house.ok("POST", "/v1/jobs/quote", json=await house.job_body())
    assert quote["queries"]["planned"] > 0
    assert quote["cost"]["planned"]["currency"] == "USD"
    assert (await house.ok("GET", "/v1/jobs"))["data"] == []
    assert house.runner.queued == []


async def test_create_and_read(house: House) -> None:
    body = await house.job_body(metadata={"who": "me"}, publish={"name": "my-endpoint"})
    answer = await house.client.post("/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert set(job) >= MEMBERS
    assert answer.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["status"], job["seed"]) == ("reprogramming.job", "queued", 7)
    assert job["metadata"] == {"who": "me"}
    assert job["limits"]["budget"] == {"amount": "5.00", "currency": "USD"}
    assert job["cost"]["spent"] == {"amount": "0.000000", "currency": "USD"}
    assert job["cost"]["remaining"] == {"amount": "5.000000", "currency": "USD"}
    assert house.runner.queued == [job["id"]]
    assert await house.ok("GET", job["links"]["self"]) == job
    for link in ("events", "metrics", "queries", "checkpoints"):
        await house.ok("GET", job["links"][link])


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"connection_id": "conn_none"}, 404, "not_found", "connection_id"),
        ({"dataset_id": "ds_none"}, 404, "not_found", "dataset_id"),
        ({"seed": -1}, 422, "invalid_request", "seed"),
        ({"surprise": 1}, 422, "unknown_field", "surprise"),
        ({"method": {"type": "magic"}}, 422, "unknown_method", "method.type"),
        ({"method": {"type": "bar", "stepsize": 1}}, 422, "invalid_request", "method.stepsize"),
        ({"limits": {"max_queries": 10}}, 422, "budget_too_small", "limits.max_queries"),
        ({"limits": {"budget": {"amount": "0.01"}}}, 422, "budget_too_small", "limits.budget"),
        (
            {"limits": {"budget": {"amount": "5", "currency": "EUR"}}},
            422, "currency_mismatch", "limits.budget.currency",
        ),
        ({"limits": {"deadline": "2030-01-01T00:00:00"}}, 422, "invalid_request", "limits.deadline"),
        ({"publish": {"name": "Not OK"}}, 422, "invalid_request", "publish.name"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_said(
    house: House, change: dict[str, Any], status: int, code: str, param: str
) -> None:
    body = await house.job_body(**change)
    for path in ("/v1/jobs", "/v1/jobs/quote"):
        is_problem(await house.client.post(path, json=body), status, code, param)
    assert house.runner.queued == []


async def test_the_hint_of_a_budget_works(house: House) -> None:
    body = await house.job_body(limits={"max_queries": 10})
    hint = is_problem(await house.client.post("/v1/jobs", json=body), 422, "budget_too_small")["hint"]
    least = int(hint.removeprefix("Allow at least ").split()[0])
    await house.ok("POST", "/v1/jobs", json=body | {"limits": {"max_queries": least}})
    body["limits"] = {"max_queries": least - 1}
    is_problem(await house.client.post("/v1/jobs", json=body), 422, "budget_too_small")


async def test_pause_resume_cancel_before_a_worker_has_it(house: House) -> None:
    job = await house.job()
    path = f"/v1/jobs/{job['id']}"
    paused = await house.ok("POST", f"{path}/pause")
    assert (paused["status"], paused["status_reason"]) == ("paused", "paused_by_user")
    assert house.services.jobs.begin(job["id"]) is None
    is_problem(await house.client.post(f"{path}/pause"), 409, "invalid_state")
    assert (await house.ok("POST", f"{path}/resume"))["status"] == "queued"
    assert house.runner.queued == [job["id"]] * 2
    is_problem(await house.client.post(f"{path}/resume"), 409, "invalid_state")
    is_problem(await house.client.delete(path), 409, "invalid_state")
    cancelled = await house.ok("POST", f"{path}/cancel")
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] is not None
    for action in ("pause", "resume", "cancel"):
        is_problem(await house.client.post(f"{path}/{action}"), 409, "invalid_state")
    assert (await house.client.delete(path)).status_code == 204
    is_problem(await house.client.get(path), 404, "not_found", "job_id")


async def test_a_running_job_stops_when_its_worker_does(house: House) -> None:
    job, jobs = await house.job(), house.services.jobs
    path = f"/v1/jobs/{job['id']}"
    held = jobs.begin(job["id"])
    assert held is not None
    assert (await house.ok("POST", f"{path}/pause"))["status"] == "pausing"
    assert jobs.get(job["id"]).want == "pause"
    assert jobs.stand_down(job["id"], held.fence) is False
    assert (await house.ok("GET", path))["status"] == "paused"
    await house.ok("POST", f"{path}/resume")
    held = jobs.begin(job["id"])
    assert held is not None
    assert (await house.ok("POST", f"{path}/cancel"))["status"] == "cancelling"
    assert jobs.begin(job["id"]) is None  # the worker died: the next one carries the cancel out
    assert (await house.ok("GET", path))["status"] == "cancelled"


async def test_change(house: House) -> None:
    job = await house.job()
    path = f"/v1/jobs/{job['id']}"
    changed = await house.ok("PATCH", path, json={"name": "new", "metadata": {"a": 1}})
    assert (changed["name"], changed["metadata"]) == ("new", {"a": 1})
    raised = await house.ok(
        "PATCH", path, json={"limits": {"max_queries": 9000, "budget": {"amount": "7.5", "currency": "USD"}}}
    )
    assert raised["limits"]["max_queries"] == 9000
    assert raised["limits"]["queries_per_prediction"] == job["limits"]["queries_per_prediction"]
    assert raised["cost"]["remaining"]["amount"] == "7.500000"
    assert raised["cost"]["remaining_queries"] == 9000
    is_problem(await house.client.patch(path, json={"limits": {"max_queries": 3}}), 422, "budget_too_small")
    is_problem(await house.client.patch(path, json={"seed": 3}), 422, "unknown_field", "seed")
    is_problem(
        await house.client.patch(path, json={"limits": {"max_queries": None}}),
        422, "invalid_request", "limits.max_queries",
    )  # fmt: skip
    finish(house.services, job["id"])
    is_problem(await house.client.patch(path, json={"limits": {"max_queries": 9001}}), 409, "invalid_state")
    await house.ok("PATCH", path, json={"name": "newer"})


async def test_clone(house: House) -> None:
    job = await house.job(metadata={"a": 1})
    clone = await house.ok("POST", f"/v1/jobs/{job['id']}/clone")
    assert clone["id"] != job["id"]
    for member in ("name", "seed", "method", "limits", "metadata", "connection_id", "dataset_id"):
        assert clone[member] == job[member]
    other = await house.ok("POST", f"/v1/jobs/{job['id']}/clone", json={"seed": 8})
    assert other["seed"] == 8
    assert house.runner.queued == [job["id"], clone["id"], other["id"]]


async def test_lists_by_status(house: House) -> None:
    body = await house.job_body()
    made = [(await house.ok("POST", "/v1/jobs", json=body))["id"] for _ in range(3)]
    await house.ok("POST", f"/v1/jobs/{made[0]}/cancel")
    queued = await house.ok("GET", "/v1/jobs?status=queued")
    assert [job["id"] for job in queued["data"]] == [made[2], made[1]]
    both = await house.ok("GET", "/v1/jobs?status=queued&status=cancelled&limit=2")
    assert (len(both["data"]), both["has_more"]) == (2, True)
    is_problem(await house.client.get("/v1/jobs?status=lost"), 422, "invalid_request", "status.0")


async def test_etag_and_retry_after(house: House) -> None:
    job = await house.job()
    path = f"/v1/jobs/{job['id']}"
    first = await house.client.get(path)
    tag = first.headers["etag"]
    assert int(first.headers["retry-after"]) >= 1
    same = await house.client.get(path, headers={"if-none-match": f'"other", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    house.services.ledger.reserve(
        job["id"], job["connection_id"], fence=0, images=1, price_micros=1, purpose="step"
    )
    changed = await house.client.get(path, headers={"if-none-match": tag})  # money alone is a change
    assert changed.status_code == 200
    assert changed.json()["cost"]["reserved"]["amount"] == "0.000001"
    await house.ok("POST", f"{path}/cancel")
    assert "retry-after" not in (await house.client.get(path)).headers


async def test_long_poll_ends_with_a_change_or_with_the_time(house: House) -> None:
    job = await house.job()
    path = f"/v1/jobs/{job['id']}"
    tag = (await house.client.get(path)).headers["etag"]
    started = time.monotonic()
    answer = await house.client.get(path, headers={"prefer": "wait=1", "if-none-match": tag})
    assert answer.status_code == 304
    assert 0.9 < time.monotonic() - started < 5
    assert answer.headers["preference-applied"] == "wait=1"
    poll = asyncio.create_task(house.client.get(path, headers={"prefer": "wait=30", "if-none-match": tag}))
    await asyncio.sleep(0.3)
    await house.ok("POST", f"{path}/cancel")
    answer = await asyncio.wait_for(poll, 5)
    assert answer.json()["status"] == "cancelled"
    over = await house.client.get(path, headers={"prefer": "wait=30"})  # nothing more will come: at once
    assert over.status_code == 200


async def test_a_failed_job_tells_why(house: House) -> None:
    from app.errors import BadRequest, KeyRefused

    job, jobs = await house.job(), house.services.jobs
    held = jobs.begin(job["id"])
    assert held is not None
    jobs.pause_for(job["id"], held.fence, KeyRefused("The key was refused.", hint="Set a new one."))
    shown = await house.ok("GET", f"/v1/jobs/{job['id']}")
    assert (shown["status"], shown["status_reason"]) == ("paused", "provider_key_refused")
    assert shown["error"]["hint"] == "Set a new one."
    resumed = await house.ok("POST", f"/v1/jobs/{job['id']}/resume")
    assert (resumed["status_reason"], resumed["error"]) == (None, None)
    held = jobs.begin(job["id"])
    assert held is not None
    jobs.fail(job["id"], held.fence, BadRequest("Constant.", code="constant_scores"))
    shown = await house.ok("GET", f"/v1/jobs/{job['id']}")
    assert (shown["status"], shown["status_reason"]) == ("failed", "constant_scores")
