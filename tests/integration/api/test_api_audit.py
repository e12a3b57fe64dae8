"""Who changed and spent what: one line for each call that is no read."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from api_house import House, is_problem, png


async def test_every_change_leaves_a_line_with_its_key_its_outcome_and_its_cost(
    make_house: Callable[..., House],
) -> None:
    house = make_house(auth="keys")
    admin = house.services.keys.ensure_first()
    async with house.client as client:
        client.headers.update({"authorization": f"Bearer {admin}"})
        made = await house.ok("POST", "/v1/keys", json={"name": "p", "scopes": ["predict"]})
        job = await house.finished_job()
        await house.ok("POST", "/v1/endpoints", json={"name": "e", "job_id": job["id"]})
        key = {"authorization": f"Bearer {made['key']}", "idempotency-key": "k", "x-request-id": "mine-1234"}
        for _ in "ab":  # the second is a replay: it does nothing
            assert (await client.post("/v1/endpoints/e/predict", content=png(9), headers=key)).is_success
        refused = await client.post("/v1/jobs", json={}, headers={**key, "idempotency-key": "l"})
        is_problem(refused, 403, "scope_missing")
        is_problem(await client.get("/v1/audit", headers=key), 403, "scope_missing")
        nobody = {"authorization": "Bearer rk_no"}
        is_problem(await client.post("/v1/jobs", json={}, headers=nobody), 401, "unauthorised")

        lines = (await house.ok("GET", f"/v1/audit?key_id={made['id']}"))["data"]
        seen = [(line["action"], line["resource"], line["status"], line["cost"]) for line in lines]
        assert seen == [
            ("create_job", "/v1/jobs", 403, None),
            ("predict", "/v1/endpoints/e/predict", 200, {"amount": "0.004800", "currency": "USD"}),
        ]
        assert lines[1]["request_id"] == "mine-1234"
        (created,) = (await house.ok("GET", "/v1/audit?action=create_job&limit=1&after=999"))["data"][:1]
        assert created["status"] == 403
        jobs = (await house.ok("GET", "/v1/audit?action=create_job"))["data"]
        assert jobs[-1]["resource"] == f"/v1/jobs/{job['id']}"
        assert {line["action"] for line in (await house.ok("GET", "/v1/audit"))["data"]} == {
            "create_key", "create_connection", "upload_dataset", "create_job", "create_endpoint", "predict",
        }  # fmt: skip

        answer = await client.get("/v1/audit", headers={"accept": "text/csv"})
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert len(rows) == 7
        assert rows[1]["amount"] == "0.004800"
        assert rows[1]["key_id"] == made["id"]
        later = await client.get("/v1/audit?format=csv&since=2100-01-01T00:00:00Z")
        assert later.text.count("\n") == 1


async def test_without_keys_the_caller_is_local(house: House) -> None:
    await house.connection()
    (line,) = (await house.ok("GET", "/v1/audit"))["data"]
    assert (line["key_id"], line["action"], line["status"]) == ("local", "create_connection", 201)
