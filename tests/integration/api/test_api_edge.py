from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from api_house import CONNECTION, House, finish, images_zip, is_problem, probe

from app.errors import RateLimited, Unusable


async def test_routes_and_methods_that_are_not_there(house: House) -> None:
    is_problem(await house.client.get("/v1/nothing"), 404, "no_such_route")
    is_problem(await house.client.get("/v1/jobs/"), 404, "no_such_route")
    wrong = await house.client.put("/v1/jobs")
    is_problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 422, "invalid_json"),
        (b"\xff", "application/json", 422, None),
        (b"", "application/json", 422, "missing_field"),
        (b"[]", "application/json", 422, "invalid_request"),
        (b"{}", "text/plain", 415, "unsupported_type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported_type"),
        (b'{"name":"' + b"x" * 3_000_000 + b'"}', "application/json", 413, "too_large"),
        (b'{"name": "\\ud800"}', "application/json", 422, None),
        (b'{"name": NaN}', "application/json", 422, None),
    ],
)
async def test_bodies_that_are_none(
    house: House, body: bytes, kind: str, status: int, code: str | None
) -> None:
    answer = await house.client.post("/v1/connections", content=body, headers={"content-type": kind})
    is_problem(answer, status, code or answer.json()["code"])


BAD_TEXT = [b'{"a": "\\ud800"}', b'{"\\ud800": 1}', b'{"a": "\\u0000"}', b'{"a": 18446744073709551616}']


@pytest.mark.parametrize("metadata", BAD_TEXT)
async def test_text_that_cannot_be_stored(house: House, metadata: bytes) -> None:
    raw = orjson.dumps(await house.job_body())[:-1] + b', "metadata": ' + metadata + b"}"
    answer = await house.client.post("/v1/jobs", content=raw, headers={"content-type": "application/json"})
    is_problem(answer, 422, "invalid_text")
    assert (await house.ok("GET", "/v1/jobs"))["data"] == []
    for path in ("/v1/jobs/%ED%A0%80", "/v1/jobs/%00", "/v1/endpoints/%F0%9F%98%80"):
        assert (await house.client.get(path)).status_code in (404, 422)


async def test_a_fault_of_ours_is_a_problem_too(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(house.services.jobs, "list", broken)
    with caplog.at_level(logging.CRITICAL):
        answer = await house.client.get("/v1/jobs", headers={"x-request-id": "my-own-id-1"})
    document = is_problem(answer, 500, "internal_error")
    assert document["request_id"] == "my-own-id-1"
    assert "secret detail" not in answer.text


async def test_deliberate_errors_keep_their_headers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(_: str, payer: object, **more: object) -> dict[str, Any]:
        raise RateLimited("Slow down.", retry_after=3)

    connection = await house.connection()
    object.__setattr__(house.services, "probe", busy)
    answer = await house.client.post(f"/v1/connections/{connection['id']}/test")
    is_problem(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "3"

    def away(*_: object) -> None:
        raise Unusable("The database cannot serve now.", code="database_unavailable")

    monkeypatch.setattr(house.services.jobs, "get", away)
    is_problem(await house.client.get("/v1/jobs/x"), 503, "database_unavailable")


async def test_request_ids(house: House) -> None:
    own = await house.client.get("/livez")
    assert own.headers["x-request-id"].startswith("req_")
    odd = await house.client.get("/livez", headers={"x-request-id": "a b\t"})
    assert odd.headers["x-request-id"].startswith("req_")


async def test_pages_of_other_sites_may_not_call(house: House) -> None:
    evil = {"origin": "https://evil.example"}
    is_problem(await house.client.post("/v1/jobs", json={}, headers=evil), 403, "cross_origin")
    own = {"origin": "http://127.0.0.1"}
    assert (await house.client.get("/v1/jobs", headers=own)).status_code == 200
    rebound = {"host": "evil.example"}
    is_problem(await house.client.get("/v1/jobs", headers=rebound), 403, "foreign_host")
    assert (await house.client.get("/v1/jobs", headers={"host": "localhost:8000"})).status_code == 200


# ---------------------------------------------------------------- Idempotency-Key


async def test_the_first_answer_is_replayed(house: House) -> None:
    body, key = await house.job_body(), {"idempotency-key": "k-1"}
    first = await house.client.post("/v1/jobs", json=body, headers=key)
    again = await house.client.post("/v1/jobs", json=body, headers=key)
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert "idempotency-replayed" not in first.headers
    assert len(house.runner.queued) == 1
    other = await house.client.post("/v1/jobs", json=body | {"seed": 8}, headers=key)
    is_problem(other, 422, "idempotency_mismatch", "Idempotency-Key")
    elsewhere = await house.client.post("/v1/jobs/quote", json=body, headers=key)
    is_problem(elsewhere, 422, "idempotency_mismatch")
    is_problem(
        await house.client.post("/v1/jobs", json=body, headers={"idempotency-key": "x" * 201}),
        422, "invalid_request", "Idempotency-Key",
    )  # fmt: skip


async def test_a_refusal_does_not_use_the_key_up(house: House) -> None:
    key = {"idempotency-key": "k"}
    bad = await house.client.post("/v1/connections", json=CONNECTION | {"price": None}, headers=key)
    is_problem(bad, 422, "price_unknown")
    assert (await house.client.post("/v1/connections", json=CONNECTION, headers=key)).status_code == 201
    assert house.services.idempotency.pending() == 0


async def test_two_at_once_are_one(house: House) -> None:
    connection = await house.connection()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: str, payer: object, **more: object) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return await probe("", None)

    object.__setattr__(house.services, "probe", slow)
    path, key = f"/v1/connections/{connection['id']}/test", {"idempotency-key": "k"}
    first = asyncio.create_task(house.client.post(path, headers=key))
    await begun.wait()
    is_problem(await house.client.post(path, headers=key), 409, "idempotency_in_progress")
    go_on.set()
    assert (await first).status_code == 200
    assert (await house.client.post(path, headers=key)).headers["idempotency-replayed"] == "true"


async def test_uploads_in_any_wrapping(house: House) -> None:
    key = {"idempotency-key": "up"}
    archive = images_zip()
    made = [await house.client.post("/v1/datasets", content=archive, headers=key) for _ in "ab"]
    assert made[0].json() == made[1].json()
    other = await house.client.post("/v1/datasets", content=images_zip(21), headers=key)
    is_problem(other, 422, "idempotency_mismatch")
    key = {"idempotency-key": "form"}  # a client draws a new boundary for each try
    sent = [
        await house.client.post("/v1/datasets", files={"file": ("a.zip", archive)}, headers=key) for _ in "ab"
    ]
    assert sent[0].json() == sent[1].json()
    assert len((await house.ok("GET", "/v1/datasets"))["data"]) == 2


async def test_keys_of_different_callers_do_not_meet(make_house: Callable[..., House]) -> None:
    house = make_house(auth="keys")
    async with house.client as client:
        ids = []
        for name in "ab":
            _, key = house.services.keys.create(name, ["write"])
            headers = {"authorization": f"Bearer {key}", "idempotency-key": "same"}
            ids.append((await client.post("/v1/connections", json=CONNECTION, headers=headers)).json()["id"])
        assert ids[0] != ids[1]
        anonymous = await client.post("/v1/connections", json=CONNECTION, headers={"idempotency-key": "same"})
        is_problem(anonymous, 401, "unauthorised")


# ---------------------------------------------------------------- operations


async def test_usage(house: House) -> None:
    job = await house.finished_job()
    for group, name in (("job", job["id"]), ("connection", job["connection_id"])):
        (line,) = (await house.ok("GET", f"/v1/usage?group_by={group}"))["data"]
        assert line == {
            "group": name, "requests": 1, "billable_queries": 24, "unknown_queries": 0,
            "cost": {"amount": "0.028800", "currency": "USD"},
        }  # fmt: skip
    (day,) = (await house.ok("GET", "/v1/usage?group_by=day"))["data"]
    assert day["group"] == job["created_at"][:10]
    assert (await house.ok("GET", "/v1/usage?group_by=endpoint"))["data"] == []
    assert (await house.ok("GET", "/v1/usage?since=2100-01-01T00:00:00Z"))["data"] == []
    is_problem(await house.client.get("/v1/usage?group_by=mood"), 422, "invalid_request", "group_by")


async def test_metrics_methods_version(house: House) -> None:
    job = await house.job()
    finish(house.services, job["id"])
    text = (await house.client.get("/metrics")).text
    assert 'reprog_jobs{status="succeeded"} 1' in text
    assert f'reprog_billable_queries_total{{connection="{job["connection_id"]}"}} 24' in text
    assert 'currency="USD"} 0.028800' in text
    assert 'route="/v1/jobs",status="201"' in text
    methods = (await house.ok("GET", "/v1/methods"))["data"]
    assert {"bar", "baseline"} <= {method["type"] for method in methods}
    assert "properties" in methods[0]["schema"]
    assert (await house.ok("GET", "/v1/version"))["name"] == "reprog"
    assert (await house.ok("GET", "/readyz")) == {"status": "ok"}


def test_a_client_that_leaves_half_way_makes_nothing(make_house: Callable[..., House]) -> None:
    """Neither a route nor the key store may take half a body for a whole one."""
    house = make_house()
    app = house.client._transport.app  # type: ignore[attr-defined]
    parts = iter([{"type": "http.request", "body": b"PK", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    for headers in ([], [(b"idempotency-key", b"k")]):
        parts = iter(
            [{"type": "http.request", "body": b"PK", "more_body": True}, {"type": "http.disconnect"}]
        )
        scope = {
            "type": "http", "method": "POST", "path": "/v1/datasets", "query_string": b"", "headers": headers,
            "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "client": None,
            "root_path": "",
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
    assert house.services.datasets.list() == []
    assert house.services.idempotency.pending() == 0
    assert isinstance(house.client, httpx.AsyncClient)
