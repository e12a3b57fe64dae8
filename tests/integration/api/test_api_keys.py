from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from api_house import CONNECTION, House, finish, is_problem

from app.api.auth import refuse_open_door
from app.errors import BadRequest


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def locked(make_house: Callable[..., House]) -> House:
    return make_house(auth="keys")


async def test_keys_are_shown_once_and_stored_hashed(locked: House, tmp_path: Path) -> None:
    first = locked.services.keys.ensure_first()
    assert first is not None
    assert locked.services.keys.ensure_first() is None
    async with locked.client as client:
        is_problem(await client.get("/v1/keys"), 401, "unauthorised")
        assert (await client.get("/v1/keys")).headers["www-authenticate"].startswith("Bearer")
        is_problem(await client.get("/v1/keys", headers=bearer("rk_wrong")), 401, "unauthorised")
        client.headers.update(bearer(first))
        made = await locked.ok("POST", "/v1/keys", json={"name": "ci", "scopes": ["read", "predict"]})
        key = made.pop("key")
        assert await locked.ok("GET", f"/v1/keys/{made['id']}") == made
        assert key not in (await client.get("/v1/keys")).text
        assert made["last4"] == key[-4:]
        keyed = {"idempotency-key": "a"}
        twice = [
            await client.post("/v1/keys", json={"name": "x", "scopes": ["read"]}, headers=keyed) for _ in "ab"
        ]
        assert twice[0].json() == twice[1].json()
        is_problem(
            await client.post("/v1/keys", json={"name": "x", "scopes": ["root"]}),
            422,
            "invalid_request",
            "scopes.0",
        )
        assert (await client.get("/v1/connections", headers=bearer(key))).status_code == 200
        assert (await client.delete(f"/v1/keys/{made['id']}")).status_code == 204
        is_problem(await client.get("/v1/connections", headers=bearer(key)), 401, "unauthorised")
        is_problem(await client.get("/v1/keys/key_x"), 404, "not_found")
    locked.services.engine.dispose()
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("reprog.sqlite*"))
    for secret in (key, first, twice[0].json()["key"]):
        assert secret.encode() not in stored


async def test_each_scope_opens_its_own_doors(locked: House) -> None:
    doors = {
        "read": ("GET", "/v1/jobs"),
        "write": ("DELETE", "/v1/connections/conn_x"),
        "spend": ("POST", "/v1/connections/conn_x/test"),
        "predict": ("POST", "/v1/endpoints/x/predict"),
        "admin": ("GET", "/v1/keys"),
    }
    async with locked.client as client:
        for scope in doors:
            _, key = locked.services.keys.create(scope, [scope])
            for other, (method, path) in doors.items():
                answer = await client.request(method, path, headers=bearer(key))
                if scope in (other, "admin"):
                    assert answer.status_code not in (401, 403), (scope, other, answer.text)
                else:
                    is_problem(answer, 403, "scope_missing")


async def test_raising_limits_needs_spend_and_references_need_admin(locked: House) -> None:
    _, admin = locked.services.keys.create("a", ["admin"])
    _, writer = locked.services.keys.create("w", ["read", "write"])
    async with locked.client as client:
        client.headers.update(bearer(admin))
        job = await locked.job()
        client.headers.update(bearer(writer))
        path = f"/v1/jobs/{job['id']}"
        assert (await client.patch(path, json={"name": "n"})).status_code == 200
        is_problem(await client.patch(path, json={"limits": {"max_queries": 9000}}), 403, "scope_missing")
        body = {k: v for k, v in CONNECTION.items() if k != "secret"} | {"secret_ref": "file:/etc/passwd"}
        is_problem(await client.post("/v1/connections", json=body), 403, "scope_missing")


async def test_health_and_reference_need_no_key(locked: House) -> None:
    async with locked.client as client:
        for path in ("/livez", "/readyz", "/v1/version", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path
        is_problem(await client.get("/metrics"), 401, "unauthorised")


def test_an_open_door_is_refused() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        refuse_open_door("off", host)
    for host in ("0.0.0.0", "", "example.org", "10.0.0.1", "::"):
        refuse_open_door("keys", host)
        with pytest.raises(BadRequest, match="REPROG_AUTH"):
            refuse_open_door("off", host)


async def test_limits_of_a_key(locked: House) -> None:
    admin = locked.services.keys.ensure_first()
    assert admin is not None
    async with locked.client as client:
        client.headers.update(bearer(admin))
        limits = {"requests_per_second": 4, "budget": {"amount": "2.00", "currency": "USD"}}
        made = await locked.ok("POST", "/v1/keys", json={"name": "ci", "scopes": ["spend"], "limits": limits})
        key, path = bearer(made["key"]), f"/v1/keys/{made['id']}"
        assert made["limits"] == {
            "requests_per_second": 4.0,
            "budget": {"amount": "2.000000", "currency": "USD"},
        }
        assert made["remaining"] == {"amount": "2.000000", "currency": "USD"}
        body = await locked.job_body()
        refused = await client.post("/v1/jobs", json=body, headers=key)
        document = is_problem(refused, 402, "key_budget_exhausted")
        assert "5.000000" in document["detail"]
        small = {"max_queries": 5000, "budget": {"amount": "1.50", "currency": "USD"}}
        job = (await client.post("/v1/jobs", json=body | {"limits": small}, headers=key)).json()
        finish(locked.services, job["id"])
        seen = await locked.ok("GET", path)
        assert seen["spent"] == [{"amount": "0.028800", "currency": "USD"}]
        assert seen["remaining"] == {"amount": "1.971200", "currency": "USD"}
        (line,) = (await locked.ok("GET", "/v1/usage?group_by=key"))["data"]
        assert (line["group"], line["billable_queries"]) == (made["id"], 24)
        answers = [await client.get("/v1/methods", headers=key) for _ in range(8)]
        slow = answers[-1]
        is_problem(slow, 429, "rate_limited")
        assert slow.headers["retry-after"] == "1"
        low = {"limits": {"budget": {"amount": "0.01", "currency": "USD"}}}
        is_problem(await client.patch(path, json=low), 409, "cap_below_spent")
        changed = await locked.ok(
            "PATCH", path, json={"name": "build", "limits": {"requests_per_second": None}}
        )
        assert (changed["name"], changed["limits"]["requests_per_second"]) == ("build", None)
        assert changed["limits"]["budget"]["amount"] == "2.000000"
        freed = await locked.ok("PATCH", path, json={"limits": {"budget": None}})
        assert (freed["limits"]["budget"], freed["remaining"]) == (None, None)
