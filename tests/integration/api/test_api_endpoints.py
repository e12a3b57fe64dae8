from __future__ import annotations

import base64
from typing import Any

import pytest
from api_house import House, is_problem, png

from app.errors import BadRequest, BudgetExhausted, Unusable


async def published(house: House, name: str = "e") -> dict[str, Any]:
    job = await house.finished_job()
    return await house.ok("POST", "/v1/endpoints", json={"name": name, "job_id": job["id"]})


async def test_publish_version_roll_back_delete(house: House) -> None:
    first = await published(house)
    path = "/v1/endpoints/e"
    assert (first["version"], first["name"], first["enabled"]) == (1, "e", True)
    assert first["id"].startswith("ep_")
    assert await house.ok("GET", path) == first
    again = {"name": "e", "job_id": first["job_id"]}
    is_problem(await house.client.post("/v1/endpoints", json=again), 409, "name_taken", "name")
    same = await house.ok("POST", "/v1/endpoints", json=again | {"overwrite": True})
    assert same["version"] == 1  # the program is live already
    older = (await house.ok("GET", f"/v1/jobs/{first['job_id']}/checkpoints"))["data"][2]["id"]
    second = await house.ok("POST", "/v1/endpoints", json=again | {"overwrite": True, "checkpoint_id": older})
    assert (second["version"], second["checkpoint_id"]) == (2, older)
    assert [v["version"] for v in (await house.ok("GET", f"{path}/versions"))["data"]] == [2, 1]
    back = await house.ok("PATCH", path, json={"version": 1})
    assert (back["version"], back["checkpoint_id"]) == (1, first["checkpoint_id"])
    is_problem(await house.client.patch(path, json={"version": 7}), 422, "unknown_version", "version")
    assert [e["name"] for e in (await house.ok("GET", "/v1/endpoints"))["data"]] == ["e"]
    is_problem(await house.client.delete(f"/v1/connections/{first['connection_id']}"), 409, "in_use")
    assert (await house.client.delete(path)).status_code == 204
    is_problem(await house.client.get(path), 404, "not_found")


async def test_what_cannot_be_published(house: House) -> None:
    job = await house.job()
    body = {"name": "e", "job_id": job["id"]}
    is_problem(await house.client.post("/v1/endpoints", json=body), 404, "no_program_yet")
    is_problem(
        await house.client.post("/v1/endpoints", json=body | {"job_id": "job_x"}), 404, "not_found", "job_id"
    )
    done = await house.finished_job()
    mixed = body | {"checkpoint_id": done["metrics"]["best"]["checkpoint_id"]}
    is_problem(await house.client.post("/v1/endpoints", json=mixed), 422, "invalid_request", "checkpoint_id")
    is_problem(
        await house.client.post("/v1/endpoints", json=body | {"name": "A b"}), 422, "invalid_request", "name"
    )


async def test_a_spend_cap(house: House) -> None:
    made = await published(house)
    path = "/v1/endpoints/e"
    capped = await house.ok("PATCH", path, json={"limits": {"budget": {"amount": "1.00"}}})
    assert capped["limits"] == {"budget": {"amount": "1.000000", "currency": "USD"}, "max_queries": None}
    attempt = house.services.ledger.reserve(
        made["id"], made["connection_id"], fence=0, images=4, price_micros=100_000, purpose="serve"
    )
    house.services.ledger.settle(attempt, [], billed=4, unknown=0, outcome="answered")
    shown = await house.ok("GET", path)
    assert shown["cost"]["spent"]["amount"] == "0.400000"
    assert shown["cost"]["remaining"]["amount"] == "0.600000"
    low = await house.client.patch(path, json={"limits": {"budget": {"amount": "0.10"}}})
    is_problem(low, 409, "cap_below_spent")
    both = await house.ok("PATCH", path, json={"limits": {"max_queries": 10}})
    assert (both["limits"]["max_queries"], both["limits"]["budget"]["amount"]) == (10, "1.000000")
    wrong = await house.client.patch(path, json={"limits": {"budget": {"amount": "1", "currency": "EUR"}}})
    is_problem(wrong, 422, "currency_mismatch", "limits.budget.currency")


DOG = [{"label": "dog", "score": 0.7}, {"label": "cat", "score": 0.2}, {"label": "owl", "score": 0.1}]
CAT = [{"label": "cat", "score": 0.5}, {"label": "owl", "score": 0.4}, {"label": "dog", "score": 0.1}]


@pytest.mark.parametrize(
    "kind", ["image/png", "application/octet-stream", None, "application/x-www-form-urlencoded"]
)
async def test_raw_bytes(house: House, kind: str | None) -> None:
    await published(house)
    headers = {"content-type": kind} if kind else {}
    answer = await house.client.post("/v1/endpoints/e/predict", content=b"a...", headers=headers)
    assert answer.json() == DOG
    assert sum(item["score"] for item in answer.json()) == pytest.approx(1)
    assert answer.headers["x-cost-usd"] == "0.004800"
    assert answer.headers["x-remote-queries"] == "4"
    assert "remote;dur=20.0" in answer.headers["server-timing"]
    assert house.predictor.asked == [[b"a..."]]


async def test_json(house: House) -> None:
    await published(house)
    path, a, b = "/v1/endpoints/e/predict", base64.b64encode(b"a").decode(), base64.b64encode(b"b").decode()
    assert await house.ok("POST", path, json={"inputs": a}) == DOG
    assert await house.ok("POST", path, json={"inputs": f"data:image/png;base64,{a}"}) == DOG
    assert await house.ok("POST", path, json={"inputs": a.rstrip("=") + "\n"}) == DOG
    assert await house.ok("POST", path, json={"inputs": [a, b]}) == [DOG, CAT]
    assert await house.ok("POST", path, json={"inputs": [b]}) == [CAT]
    assert await house.ok("POST", path, json={"inputs": a, "parameters": {"top_k": 1}}) == DOG[:1]
    refused = {
        "inputs": ({}, "missing_field"),
        "inputs.1": ({"inputs": [a, "*"]}, "invalid_base64"),
        "parameters.top_k": ({"inputs": a, "parameters": {"top_k": 0}}, "invalid_request"),
        "parameters.k": ({"inputs": a, "parameters": {"k": 1}}, "unknown_field"),
    }
    for param, (body, code) in refused.items():
        is_problem(await house.client.post(path, json=body), 422, code, param)
    for body in (
        {"inputs": ""},
        {"inputs": []},
        {"inputs": [a] * 33},
        {"inputs": 5},
        {"inputs": "data:,x"},
        [],
    ):
        answer = await house.client.post(path, json=body)
        is_problem(answer, 422, answer.json()["code"])
    broken = await house.client.post(path, content=b"{", headers={"content-type": "application/json"})
    is_problem(broken, 422, "invalid_json")


async def test_forms(house: House) -> None:
    await published(house)
    path = "/v1/endpoints/e/predict"
    one = await house.ok("POST", path, files={"file": ("x.png", b"a", "image/png")})
    assert one == [DOG]
    files = [("file", (f"{i}.png", b"ab"[i % 2 : i % 2 + 1], "image/png")) for i in range(32)]
    assert await house.ok("POST", path, files=files) == [DOG, CAT] * 16
    many = await house.client.post(path, files=[*files, ("file", ("33", b"a"))])
    is_problem(many, 422, "invalid_request")
    is_problem(await house.client.post(path, files={"file": (None, "text")}), 422, "missing_field", "file")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    is_problem(await house.client.post(path, content=b"nonsense", headers=broken), 422, "invalid_request")
    none = {"content-type": "multipart/form-data"}
    is_problem(await house.client.post(path, content=b"nonsense", headers=none), 422, "invalid_request")


async def test_predictions_that_cannot_be_had(house: House) -> None:
    await published(house)
    path, image = "/v1/endpoints/e/predict", png(1)
    is_problem(await house.client.post(path), 422, "empty_body")
    text = {"content-type": "text/plain"}
    is_problem(await house.client.post(path, content=b"x", headers=text), 415, "unsupported_type")
    is_problem(await house.client.post("/v1/endpoints/none/predict", content=image), 404, "not_found")
    house.predictor.error = BadRequest("It is no image.", code="image_unreadable")
    is_problem(await house.client.post(path, content=b"x"), 422, "image_unreadable")
    house.predictor.error = BudgetExhausted("Over the cap.", reason="budget_exhausted", scope="e")
    is_problem(await house.client.post(path, content=image), 402, "budget_exhausted")
    house.predictor.error = Unusable("The provider is down.", retry_after=7.2, code="provider_unavailable")
    down = await house.client.post(path, content=image)
    is_problem(down, 503, "provider_unavailable")
    assert down.headers["retry-after"] == "7"
    house.predictor.error = None
    await house.ok("PATCH", "/v1/endpoints/e", json={"enabled": False})
    is_problem(await house.client.post(path, content=image), 409, "endpoint_disabled")
