from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_house import CONNECTION, House, is_problem


async def test_the_secret_goes_in_and_never_comes_out(house: House, tmp_path: Path) -> None:
    answer = await house.client.post("/v1/connections", json=CONNECTION)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/v1/connections/{made['id']}"
    assert made["id"].startswith("conn_")
    assert made["secret"] == {"set": True, "last4": "cdef", "ref": None}
    assert made["price"] == {"per_1000": "1.20", "currency": "USD"}
    assert made["created_at"].endswith("Z")
    read = await house.ok("GET", f"/v1/connections/{made['id']}")
    assert read == made
    assert house.services.connections.secret(made["id"]) == CONNECTION["secret"]
    house.services.engine.dispose()
    for file in tmp_path.glob("reprog.sqlite*"):
        assert CONNECTION["secret"].encode() not in file.read_bytes()
    assert CONNECTION["secret"] not in repr(house.services.connections.get(made["id"]))


async def test_a_secret_by_reference(house: House, environment: dict[str, str], tmp_path: Path) -> None:
    body = {k: v for k, v in CONNECTION.items() if k != "secret"}
    by_name = await house.ok("POST", "/v1/connections", json=body | {"secret_ref": "env:PROVIDER_KEY"})
    assert by_name["secret"] == {"set": True, "last4": None, "ref": "env:PROVIDER_KEY"}
    assert house.services.connections.secret(by_name["id"]) == "from-the-environment"
    (tmp_path / "key").write_text("from-a-file\n")
    by_file = await house.ok("POST", "/v1/connections", json=body | {"secret_ref": f"file:{tmp_path}/key"})
    assert house.services.connections.secret(by_file["id"]) == "from-a-file"
    environment.clear()
    dataset = await house.dataset()
    job = {"name": "j", "connection_id": by_name["id"], "dataset_id": dataset["id"]}
    job["method"] = {"type": "baseline"}
    is_problem(await house.client.post("/v1/jobs", json=job), 422, "secret_missing", "secret_ref")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"price": None}, "price_unknown", "price"),
        ({"price": {"per_1000": "-1"}}, "invalid_request", "price.per_1000"),
        ({"price": {"per_1000": "0.0001"}}, "invalid_request", "price.per_1000"),
        ({"price": {"per_1000": 1.2}}, "invalid_request", "price.per_1000"),
        ({"name": ""}, "invalid_request", "name"),
        ({"base_url": "ftp://x"}, "invalid_request", "base_url"),
        ({"provider": "nobody"}, "unknown_provider", "provider"),
        ({"limits": {"max_batch": 0}}, "invalid_request", "limits.max_batch"),
        ({"limits": {"requests_per_second": 0}}, "invalid_request", "limits.requests_per_second"),
        ({"surprise": 1}, "unknown_field", "surprise"),
        ({"secret_ref": "env:X"}, "invalid_request", None),
        ({"secret": None, "secret_ref": "env:REPROG_SECRET_KEY"}, "invalid_request", "secret_ref"),
        ({"secret": "line\nbreak"}, "secret_characters", "secret"),
        ({"budget": {"amount": "5", "currency": "EUR"}}, "currency_mismatch", "budget.currency"),
    ],
)
async def test_a_wrong_member_is_named(
    house: House, change: dict[str, Any], code: str, param: str | None
) -> None:
    answer = await house.client.post("/v1/connections", json=CONNECTION | change)
    code = "invalid_request" if code == "secret_characters" else code
    assert is_problem(answer, 422, code, param)["hint"] or code == "unknown_provider"
    assert (await house.ok("GET", "/v1/connections"))["data"] == []


async def test_no_price_at_all_is_price_unknown(house: House) -> None:
    body = {k: v for k, v in CONNECTION.items() if k != "price"}
    is_problem(await house.client.post("/v1/connections", json=body), 422, "price_unknown", "price")


async def test_price_zero_is_allowed(house: House) -> None:
    made = await house.connection(price={"per_1000": "0"})
    assert made["price"] == {"per_1000": "0.00", "currency": "USD"}


async def test_change_test_labels_delete(house: House) -> None:
    made = await house.connection()
    path = f"/v1/connections/{made['id']}"
    changed = await house.ok(
        "PATCH", path, json={"name": "other", "price": {"per_1000": "2.00"}, "budget": {"amount": "9.5"}}
    )
    assert (changed["name"], changed["price"]["per_1000"]) == ("other", "2.00")
    assert changed["budget"] == {"amount": "9.500000", "currency": "USD"}
    assert changed["limits"] == made["limits"]
    is_problem(await house.client.patch(path, json={"model": {}}), 422, "unknown_field", "model")
    tested = await house.ok("POST", f"{path}/test")
    assert tested["ok"] is True
    assert tested["labels"] == ["nsfw", "sfw"]
    assert tested["cost"] == {"amount": "0.001200", "currency": "USD"}
    house.services.connections.book(made["id"]).extend(["nsfw", "sfw"])
    assert (await house.ok("GET", f"{path}/labels"))["labels"] == ["nsfw", "sfw"]
    assert (await house.client.delete(path)).status_code == 204
    is_problem(await house.client.get(path), 404, "not_found")
    is_problem(await house.client.post(f"{path}/test"), 404, "not_found")


async def test_a_connection_in_use_stays(house: House) -> None:
    job = await house.job()
    path = f"/v1/connections/{job['connection_id']}"
    is_problem(await house.client.delete(path), 409, "in_use")
    await house.ok("POST", f"/v1/jobs/{job['id']}/cancel")
    assert (await house.client.delete(path)).status_code == 204
    shown = await house.ok("GET", f"/v1/jobs/{job['id']}")  # its jobs can still be read
    assert shown["cost"]["spent"]["currency"] == "USD"


async def test_pages(house: House) -> None:
    made = [(await house.connection(name=f"c{i}"))["id"] for i in range(5)]
    first = await house.ok("GET", "/v1/connections?limit=2")
    assert first["object"] == "list"
    assert [c["id"] for c in first["data"]] == [made[4], made[3]]
    assert (first["has_more"], first["next_cursor"]) == (True, made[3])
    rest = await house.ok("GET", f"/v1/connections?limit=100&after={first['next_cursor']}")
    assert [c["id"] for c in rest["data"]] == made[2::-1]
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    for limit in ("0", "101", "x"):
        is_problem(await house.client.get(f"/v1/connections?limit={limit}"), 422, "invalid_request", "limit")


async def test_terms_are_asked_about_once_for_public_hosts(house: House) -> None:
    unread = {**CONNECTION, "terms_acknowledged": False}
    problem = is_problem(
        await house.client.post("/v1/connections", json=unread | {"base_url": "https://8.8.4.4"}),
        422,
        "terms_not_acknowledged",
        "terms_acknowledged",
    )
    assert "https://www.clarifai.com/terms" in problem["hint"]
    assert "8.8.4.4" in problem["detail"]
    for base_url in ("http://127.0.0.1:8900", "http://localhost:8900", "http://10.1.2.3", "http://[::1]:1"):
        await house.ok("POST", "/v1/connections", json=unread | {"base_url": base_url})
    made = await house.connection(base_url="http://127.0.0.1:1")
    moved = {"base_url": "https://8.8.8.8"}
    answer = await house.client.patch(f"/v1/connections/{made['id']}", json=moved)
    is_problem(answer, 422, "terms_not_acknowledged", "terms_acknowledged")
    await house.ok("PATCH", f"/v1/connections/{made['id']}", json=moved | {"terms_acknowledged": True})


async def test_providers_are_listed_with_their_settings(house: House) -> None:
    listed = {row["name"]: row for row in (await house.ok("GET", "/v1/providers"))["data"]}
    assert len(listed) >= 10
    clarifai = listed["clarifai"]
    assert clarifai["defaults"]["terms"] == "https://www.clarifai.com/terms"
    assert float(clarifai["defaults"]["price"]["per_1000"]) == 1.2
    assert "model_id" in clarifai["model_schema"]["required"]
    assert "url" in listed["http_json"]["model_schema"]["$defs"]["Request"]["properties"]
