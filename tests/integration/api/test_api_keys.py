from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from api_house import CONNECTION, House, is_problem

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
        for path in ("/livez", "/readyz", "/v1/version", "/openapi.json", "/docs"):
            assert (await client.get(path)).status_code == 200, path
        is_problem(await client.get("/metrics"), 401, "unauthorised")


def test_an_open_door_is_refused() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        refuse_open_door("off", host)
    for host in ("0.0.0.0", "", "example.org", "10.0.0.1", "::"):
        refuse_open_door("keys", host)
        with pytest.raises(BadRequest, match="REPROG_AUTH"):
            refuse_open_door("off", host)
