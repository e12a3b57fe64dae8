"""Forms by plain POST: they do what the REST calls do, for the right person, from our own pages only."""

from __future__ import annotations

import dataclasses
import io
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from dashboard_place import ORIGIN, Place
from PIL import Image

from app.dashboard import cookie


def archive() -> bytes:
    out, rng = io.BytesIO(), np.random.default_rng(0)
    with zipfile.ZipFile(out, "w") as file:
        for n in range(40):
            png = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(png, "PNG")
            file.writestr(f"{'cat' if n % 2 else 'dog'}/{n}.png", png.getvalue())
        file.writestr("cat/broken.png", b"no image")
    return out.getvalue()


CONNECTION = {
    "provider": "clarifai",
    "name": "mine",
    "base_url": "http://127.0.0.1:1",
    "model.user_id": "u",
    "model.app_id": "a",
    "model.model_id": "m",
    "secret": "a-secret-4711",
    "price": "1.20",
    "currency": "USD",
    "next": "new",
}


async def test_from_nothing_to_a_job(place: Place) -> None:
    async with place.client() as client:
        made = await client.post("/connections", data=CONNECTION)
        assert made.status_code == 303
        assert made.headers["location"].startswith("/new/data?connection_id=conn_")
        connection = made.headers["location"].partition("=")[2]
        sent = await client.post(
            f"/datasets?next={connection}", files={"file": ("pets.zip", archive(), "application/zip")}
        )
        assert sent.status_code == 303
        report = (await client.get(sent.headers["location"])).text
        assert "pets" in report
        assert "each with a reason" in report
        data = httpx.URL(sent.headers["location"]).params["dataset_id"]
        chosen = {
            "name": "pets",
            "connection_id": connection,
            "dataset_id": data,
            "method": "auto",
            "max_queries": "500",
            "budget": "0.50",
            "publish": "pets",
        }
        review = (await client.get("/new/review", params=chosen)).text
        assert "$0.50" in review or "$0.60" in review
        assert "curl -X POST" in review
        started = await client.post("/jobs", data=chosen)
        assert started.status_code == 303
    job = place.house.jobs.get(started.headers["location"].rpartition("/")[2])
    assert job.spec["limits"]["budget"] == {"amount": "0.50", "currency": "USD"}
    assert place.house.ledger.cost(job.id).cap == 500_000


async def test_refusals_come_back_on_the_page_with_what_was_typed(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        wrong = await client.post("/connections", data=CONNECTION | {"price": "", "name": "kept name"})
        assert wrong.status_code == 422
        assert "kept name" in wrong.text
        assert "a-secret-4711" not in wrong.text
        assert "price_unknown" in wrong.text
        chosen = {
            "name": "x",
            "connection_id": full.connection,
            "dataset_id": full.dataset,
            "max_queries": "3",
        }
        refused = await client.post("/jobs", data=chosen)
        assert refused.status_code == 422
        assert "need" in refused.text
        quote = await client.get("/new/quote", params=chosen)
        assert "need" in quote.text
        upload = await client.post("/datasets", files={"file": ("x.zip", b"no zip", "application/zip")})
        assert upload.status_code in (415, 422)
        assert "<main" in upload.text


async def test_steering(full: SimpleNamespace) -> None:
    jobs, ledger = full.place.house.jobs, full.place.house.ledger
    async with full.place.client() as client:
        assert (await client.post(f"/jobs/{full.fresh}/pause")).status_code == 303
        assert jobs.get(full.fresh).status == "paused"
        assert "You paused it" in (await client.get(f"/jobs/{full.fresh}")).text
        assert (await client.post(f"/jobs/{full.fresh}/limits", data={"budget": "9.50"})).status_code == 303
        assert ledger.cost(full.fresh).cap == 9_500_000
        assert (await client.post(f"/jobs/{full.fresh}/resume")).status_code == 303
        assert (await client.post(f"/jobs/{full.fresh}/cancel")).status_code == 303
        assert jobs.get(full.fresh).status == "cancelled"
        again = await client.post(f"/jobs/{full.fresh}/pause")
        assert again.status_code == 409
        assert "cannot be paused" in again.text


async def test_endpoint_forms(full: SimpleNamespace) -> None:
    endpoints = full.place.house.endpoints
    assert endpoints.get("digits").version == 2
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    async with full.place.client() as client:
        told = await client.post(
            "/endpoints/digits/predict", files={"file": ("a.png", png.getvalue(), "image/png")}
        )
        assert "90.0 %" in told.text
        assert "$0.0012" in told.text
        first = full.place.house.datasets.get(full.dataset).images()["train"]
        sample = await client.post("/endpoints/digits/predict", data={"sample": str(first)})
        assert "90.0 %" in sample.text
        nothing = await client.post("/endpoints/digits/predict", data={"sample": ""})
        assert nothing.status_code == 422
        await client.post("/endpoints/digits/change", data={"version": "1"})
        assert endpoints.get("digits").version == 1
        await client.post("/endpoints/digits/change", data={"enabled": "false", "budget": "2"})
        assert not endpoints.get("digits").enabled
        assert "$2.00" in (await client.get("/endpoints/digits")).text


async def test_what_was_just_spent_is_told_where_the_sum_stands(full: SimpleNamespace) -> None:
    """A script replaces the answer alone: the sums on the page come with it."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")

    async def probe(*_: object, probes: bool, repeats: int, **__: object) -> dict[str, Any]:
        place.house.ledger.reserve(full.connection, full.connection, images=1, **asked)
        more = {"seems_to_resize": None, "seems_to_recompress": False, "probes": {"weak": True}}
        return {"labels": ["a"], "latency_ms": 9.0, "model_version": None, "score_kind": "percent",
                "decimals": 2, "repeats": {"queries": repeats, "spread": 0.25}, "cost_micros": 7200,
                "queries": 6} | (more if probes else {})  # fmt: skip

    place: Place = full.place
    asked = {"fence": 0, "price_micros": 1200, "purpose": "connection_test"}
    place.app.state.services = dataclasses.replace(place.app.state.services, probe=probe)
    async with place.client(**{"hx-request": "true"}) as client:
        told = await client.post("/endpoints/digits/predict", files={"file": ("a.png", png.getvalue())})
        assert re.search(r'id="e-spent" hx-swap-oob="true">\$0\.00', told.text)
        assert 'id="e-queries" hx-swap-oob="true">0<' in told.text
        form = {"probes": "true", "repeats": "2"}
        told = await client.post(f"/connections/{full.connection}/test", data=form)
        assert "6 queries for $0.0072" in told.text
        assert "a score moved by 0.25 at most" in told.text
        assert "cannot be told" in told.text
        assert re.search(r'id="spent" hx-swap-oob="true">\$0\.00', told.text)


async def test_an_endpoints_canary_says_what_its_last_run_found(full: SimpleNamespace) -> None:
    endpoints = full.place.house.endpoints
    async with full.place.client() as client:
        given = {"canary_queries": "3", "canary_minutes": "30"}
        assert (await client.post("/endpoints/digits/change", data=given)).status_code == 303
        page = (await client.get("/endpoints/digits")).text
        assert "waiting for its first run" in page
        assert "3 fixed queries every 30 min" in page
        watch, job = endpoints.canaries.get(endpoints.get("digits").id), full.job
        last = {"at": "2026-01-02T03:04:05Z", "moved": 0.125}
        endpoints.canaries.record(watch, job, state="degraded", last=last, baseline=None, version=2)
        page = (await client.get("/endpoints/digits")).text
        assert "Degraded: its canary" in page
        assert "2 Jan 2026, 03:04 UTC</time>: scores moved 12.5 % at most, 2.0 % are allowed" in page
        assert "degraded" in (await client.get("/endpoints")).text
        last = {"at": "2026-01-02T03:34:05Z", "error": {"code": "unavailable", "detail": "No answer."}}
        endpoints.canaries.record(watch, job, state="degraded", last=last, baseline=None, version=2)
        assert "03:34 UTC</time>: No answer." in (await client.get("/endpoints/digits")).text
        await client.post("/endpoints/digits/change", data={"canary_queries": "0"})
        assert "Fixed queries on a schedule" in (await client.get("/endpoints/digits")).text


@pytest.mark.parametrize("origin", [None, "https://elsewhere.example", "null"])
async def test_forms_of_other_sites_do_nothing(full: SimpleNamespace, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(full.place.app), base_url=ORIGIN, trust_env=False, headers=headers
    ) as client:
        answer = await client.post(f"/jobs/{full.fresh}/cancel")
    assert answer.status_code == 403
    assert full.place.house.jobs.get(full.fresh).status == "queued"


# ---------------------------------------------------------------- sessions


async def test_a_session_has_the_scopes_of_its_key_and_ends_with_it(locked: Place) -> None:
    record, key = locked.house.keys.create("reader", ["read"])
    async with locked.client() as client:
        first = await client.get("/jobs")
        assert first.status_code == 303
        assert first.headers["location"] == "/login?next=%2Fjobs"
        assert (await client.post("/login", data={"key": "rk_wrong"})).status_code == 401
        signed = await client.post("/login", data={"key": key, "next": "/jobs"})
        assert signed.headers["location"] == "/jobs"
        kept = signed.headers["set-cookie"].lower()
        assert "httponly" in kept
        assert "samesite=strict" in kept
        assert key.lower() not in kept
        assert "reader" in (await client.get("/jobs")).text
        assert (await client.post("/jobs/job_x/pause")).status_code == 403  # it may only read
        locked.house.keys.revoke(record.id)
        assert (await client.get("/jobs")).status_code == 303


async def test_a_session_ends_by_itself_and_a_forged_one_never_began(
    locked: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = locked.house.keys.create("reader", ["read"])
    async with locked.client() as client:
        monkeypatch.setattr(cookie, "LASTS", -1)
        await client.post("/login", data={"key": key})
        client.cookies.set(cookie.NAME, locked.house.vault.seal(f"1:{key}".encode()).decode())
        assert (await client.get("/")).status_code == 303
        client.cookies.set(cookie.NAME, "gAAAA-forged")
        assert (await client.get("/")).status_code == 303


@pytest.mark.parametrize("path", ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example"])
async def test_signing_in_leads_nowhere_else(locked: Place, path: str) -> None:
    _, key = locked.house.keys.create("reader", ["read"])
    async with locked.client() as client:
        assert (await client.post("/login", data={"key": key, "next": path})).headers["location"] == "/"


def test_files_are_there() -> None:
    static = Path(__file__).parents[3] / "app" / "dashboard" / "static" / "vendor"
    for package in ("htmx", "uplot", "inter"):
        assert list(static.glob(f"{package}-[0-9l]*"))
        assert (static / f"{package}-LICENSE.txt").read_text().strip()
