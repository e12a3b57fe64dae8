"""Every page over real stores, without a browser: it answers, it is safe, it needs nobody else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from dashboard_place import Place
from sqlalchemy import insert, select, update

from app.dashboard import job as job_pages
from app.dashboard.web import POLICY
from app.dashboard.words import PARTS
from app.storage import checkpoints, tables
from app.storage.database import read, write

SECONDS = 0.2  # of work for a page with a full database; `make bench` measures the first byte
WEIGHT = 300_000  # bytes of a page with its files


def pages(full: SimpleNamespace) -> Iterator[str]:
    c, d, j = full.connection, full.dataset, full.job
    yield from ("/", "/jobs", "/jobs?status=queued", "/datasets", "/endpoints", "/connections", "/new")
    yield from (f"/connections?provider={kind}" for kind in ("clarifai", "custom_vision", "http_json"))
    yield from (
        f"/connections/{c}",
        f"/datasets/{d}",
        f"/datasets/{d}?split=test&label=3",
        "/endpoints/digits",
    )
    yield from (
        f"/jobs/{j}",
        f"/jobs/{full.fresh}",
        f"/jobs/{j}/live",
        f"/jobs/{j}/mapping",
        f"/jobs/{j}/strip",
    )
    yield from (f"/jobs/{j}/reliability", f"/compare?job={j}&job={full.other}&job={full.fresh}")
    yield from (f"/new/data?connection_id={c}", f"/new/data?connection_id={c}&dataset_id={d}")
    yield from (f"/new/method?connection_id={c}&dataset_id={d}", f"/compare/images?job={j}&job={full.other}")
    yield from (
        "/keys",
        "/usage",
        "/usage?group_by=job",
        "/usage?group_by=endpoint&since=2026-01-01",
        "/docs",
    )
    yield f"/jobs/{j}?x=queries"
    yield f"/new/review?connection_id={c}&dataset_id={d}&name=it%27s&method=auto&max_queries=4000&budget=6.00"


async def test_every_page_answers_under_the_policy_and_names_no_other_host(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        for path in pages(full):
            answer = await client.get(path)
            assert answer.status_code == 200, (path, answer.text[:2000])
            assert answer.headers["content-security-policy"] == POLICY
            text = answer.text
            loaded = re.findall(
                r"""<(?:script|link|img|iframe|source|form)\b[^>]*?\b(?:src|href|action)=["']([^"']+)""", text
            )
            assert all(url.startswith(("/", "#")) and not url.startswith("//") for url in loaded), (
                path,
                loaded,
            )
            assert " style=" not in text, path  # the policy would drop it
            assert "<script>" not in text, path
            assert not re.search(r"""\son\w+=["']""", text), path
            assert "<b>bold</b>" not in text, path
            assert "not-to-be-seen-0123" not in text, path


FOLLOWED = re.compile(
    r"""\s(?:href|src|hx-get|data-curve|data-part)=["'](/[^"'#]*)|"(/jobs/[^"\s]+\?checkpoint_id=[^"\s]+)\""""
)


async def follow(client: httpx.AsyncClient, full: SimpleNamespace) -> dict[str, int]:
    """Status of everything that pages link, show or fetch. Forms are elsewhere."""
    seen: set[str] = set()
    for path in pages(full):
        answer = await client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        found = FOLLOWED.findall(answer.text.replace("&#34;", '"').replace("&amp;", "&"))
        urls = {url for pair in found for url in pair if url}
        seen |= urls - {"/new/quote"}  # asked with what the form holds
    codes = {url: await client.get(url) for url in sorted(seen)}
    return {
        url: 401 if "/login" in answer.headers.get("location", "") else answer.status_code
        for url, answer in codes.items()
    }


async def test_every_link_and_file_of_every_page_is_there(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        codes = await follow(client, full)
    gone = {url: code for url, code in codes.items() if code not in (200, 303)}
    # Nothing was ever asked here, so there are no cells to open.
    assert {url for url, code in gone.items() if "/cell?" not in url or code != 404} == set()
    assert len(codes) > 60


async def test_every_link_opens_for_who_is_signed_in(full_and_locked: SimpleNamespace) -> None:
    place: Place = full_and_locked.place
    _, key = place.house.keys.create("admin", ["admin"])
    async with place.client() as client:
        await client.post("/login", data={"key": key})
        codes = await follow(client, full_and_locked)
        shut = {url: code for url, code in codes.items() if code in (401, 403)}
        assert shut == {}
        assert {code for url, code in codes.items() if "/cell?" not in url} <= {200, 303}
        # Who may only read is offered no keys.
        _, reader = place.house.keys.create("reader", ["read"])
        await client.post("/login", data={"key": reader})
        assert 'href="/keys"' not in (await client.get("/")).text
        assert (await client.get("/keys")).status_code == 403


async def test_weight(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        for path in pages(full):
            text = (await client.get(path)).text
            parts = re.findall(r"""<(?:link|script|img)\b[^>]*?\b(?:href|src)=["'](/[^"'#]*)""", text)
            sizes = [len((await client.get(url.replace("&amp;", "&"))).content) for url in set(parts)]
            assert len(text.encode()) + sum(sizes) < WEIGHT, path


async def test_first_byte_with_a_thousand_jobs_and_a_hundred_thousand_points(full: SimpleNamespace) -> None:
    place: Place = full.place
    template = place.house.jobs.get(full.job)
    row: dict[str, Any] = {
        "name": "many",
        "status": "succeeded",
        "want": "run",
        "status_reason": None,
        "spec": template.spec,
        "metadata": {},
        "connection_id": full.connection,
        "dataset_id": full.dataset,
        "fence": 1,
        "revision": 1,
        "progress": template.progress,
        "metrics": template.metrics,
        "error": None,
        "created_at": 1.0,
        "started_at": 1.0,
        "finished_at": 2.0,
    }
    point = {
        "queries": 1,
        "spent_micros": 1200,
        "at": 2.0,
        "data": {"train_loss": 1.0, "phase": "step", "val_accuracy": 0.5},
    }
    with write(place.house.engine) as connection:
        connection.execute(insert(tables.jobs), [row | {"id": f"job_zz{n:04d}"} for n in range(1000)])
        connection.execute(
            insert(tables.points), [point | {"job_id": "job_zz0500", "step": n} for n in range(100_000)]
        )
    busy, chosen = "/jobs/job_zz0500", f"connection_id={full.connection}&dataset_id={full.dataset}"
    many = ("/", "/jobs", busy, f"{busy}/curve", f"/compare?job=job_zz0500&job={full.job}", "/usage", "/docs")
    few = ("/datasets", "/endpoints", "/connections", "/keys", "/audit", f"/new/method?{chosen}")
    async with place.client() as client:
        for path in (*many, *few):
            await client.get(path)  # templates are compiled once
            took = min([await _seconds(client, path) for _ in range(3)])
            assert took < SECONDS, (path, took)


async def _seconds(client: Any, path: str) -> float:
    """CPU time of the process: what other processes do meanwhile does not count."""
    started = time.process_time()
    answer = await client.get(path)
    assert answer.status_code == 200, path
    return time.process_time() - started


async def test_the_reference_names_every_route(place: Place) -> None:
    async with place.client() as client:
        page = (await client.get("/docs")).text
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert [path for path in paths if path not in page] == []


async def test_a_verdict_says_what_its_parts_are_worth(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        page = (await client.get(f"/jobs/{full.job}")).text
    rows = re.findall(r"<tr><td>(Scores[^<]*|Pixels alone)(.*?)</tr>", page)
    assert [name.strip() for name, _ in rows] == list(PARTS.values())
    assert ["this program" in rest for _, rest in rows] == [True, False, False]
    assert "50.0 %" in rows[2][1]


async def test_many_classes_are_listed_by_their_confusions(
    full: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "_MATRIX", 5)
    async with full.place.client() as client:
        page = (await client.get(f"/jobs/{full.job}")).text
    assert "The commonest mistakes among 10 classes" in page
    assert 'aria-label="1 of 0 called 1"' in page
    assert 'class="confusion"' not in page


async def test_curves_are_drawn_without_a_script(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        alone = (await client.get(f"/jobs/{full.job}?x=queries")).text
        beside = (await client.get(f"/compare?job={full.job}&job={full.other}&x=time")).text
    assert alone.count("<polyline") == 4  # validation accuracy and three rivals
    assert alone.count('<polygon class="band') == 1
    assert "queries paid" in alone
    assert beside.count("<polyline") == beside.count('<polygon class="band') == 2
    assert "1 done" in beside
    assert "seconds since the start" in beside


async def test_empty_pages_say_what_to_do(place: Place) -> None:
    async with place.client() as client:
        for path, words in (
            ("/", "Connect an account"),
            ("/jobs", "No jobs yet"),
            ("/datasets", "No images yet"),
            ("/endpoints", "No endpoints yet"),
            ("/new", "No connection yet"),
        ):
            assert words in (await client.get(path)).text


@pytest.mark.parametrize("path", ["/jobs/job_none", "/datasets/ds_none", "/endpoints/none", "/compare?job=a"])
async def test_errors_are_pages(place: Place, path: str) -> None:
    async with place.client() as client:
        answer = await client.get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert "<main" in answer.text
    assert 'role="alert"' in answer.text


async def test_a_script_gets_the_part_alone(full: SimpleNamespace) -> None:
    async with full.place.client(**{"hx-request": "true"}) as client:
        answer = await client.get(f"/jobs/{full.job}/mapping")
        missing = await client.get("/jobs/job_none/mapping")
    assert "<html" not in answer.text + missing.text
    assert "not safe" in answer.text


async def test_curve_document(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        found = (await client.get(f"/jobs/{full.job}/curve")).json()
    assert found["queries"] == [100, 200, 300]
    assert found["cost"] == pytest.approx([0.12, 0.24, 0.36])
    assert found["accuracy"] == pytest.approx([0.51, 0.52, 0.53])
    assert found["validation_images"] == 24
    assert {line["name"] for line in found["baselines"]} == {
        "Commonest class (test)",
        "Linear head (test)",
        "Your pixels alone (test)",
    }


NUMBER = r"\d+(?:\.\d+)?"


async def test_every_score_has_its_interval_and_what_it_is_held_against(full: SimpleNamespace) -> None:
    async with full.place.client() as client:
        page = (await client.get(f"/jobs/{full.job}")).text
        old = (await client.get(f"/jobs/{full.other}")).text
    cells = [re.sub("<[^>]+>", " ", one) for one in re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)]
    for this, after in pairwise(cells):
        if re.match(rf"\s*{NUMBER} %", this):  # here or in a column of its own
            assert re.search(rf"{NUMBER} to {NUMBER} %", this + after), this
    per_class = page[page.index("<h2>Per class</h2>") :]
    assert len(re.findall(r"<small>30 to 95 %</small><br><small>head 75 %</small>", per_class)) == 3 * 10
    assert "linear head 70.0 %" in per_class
    assert "linear head 60.0 %" in per_class
    assert "linear head 0.850, chance 0.5" in per_class
    assert "linear head 20.0 %" in per_class[per_class.index("Calibration error") :]
    for text in re.findall(r'"text":"([^"]+)"', page) or [page]:
        assert re.search(rf"on validation \({NUMBER} to {NUMBER} %\)", text), text
    assert "For comparison: Commonest class (test) 75.0 % (60.0 to 86.0 %)" in page
    # The report of a release that stored fewer intervals has those that can be told from counts.
    assert len(re.findall(r"75 %<br><small>30 to 95 %</small>", old)) == 2 * 10  # recall and precision
    assert len(re.findall(r"75 %<br><small>37 to 94 %</small>", old)) == 10


async def test_before_the_test_a_score_is_held_against_the_plain_image(full: SimpleNamespace) -> None:
    place: Place = full.place
    head = {"val_accuracy": 0.4, "ci95": [0.3, 0.5]}
    known = {"expectation": {"head": head, "pixels": {"val_accuracy": 0.9}, "sentence": "It will do."}}
    known |= {"best": {"val_accuracy": 0.5, "validation_images": 24, "checkpoint_id": "c", "step": 1}}
    with write(place.house.engine) as connection:
        connection.execute(
            update(tables.jobs).where(tables.jobs.c.id == full.fresh).values(metrics=known, status="running")
        )
    async with place.client() as client:
        page = (await client.get(f"/jobs/{full.fresh}")).text
        curve = (await client.get(f"/jobs/{full.fresh}/curve")).json()
    assert "head on the plain image 40.0 %" in page
    assert [one["name"] for one in curve["baselines"]] == [
        "Head on the plain image (validation)",
        "Pixels alone (validation)",
    ]


@pytest.mark.parametrize(
    ("cap", "queries", "said"),
    [
        (5_000_000, 900, ("$0.00 spent of $1.08 at most", "of 900 allowed", "the budget of $5.00 is never")),
        (1_200_000, 20_000, ("$0.00 spent of $1.20 at most", "of 1,000 allowed")),
        (None, 900, ("$0.00 spent of $1.08 at most", "of 900 allowed")),
        (1_200_500, None, ("$0.00 spent of $1.20 at most", "of 1,000 allowed")),
    ],
)
async def test_a_job_says_what_it_may_spend_at_most(
    full: SimpleNamespace, cap: int | None, queries: int | None, said: tuple[str, ...]
) -> None:
    place: Place = full.place
    spec = place.house.jobs.get(full.job).spec
    ids = {"connection_id": full.connection, "dataset_id": full.dataset}
    job = place.house.jobs.create(name="j", spec=spec, metadata={}, cap=cap, queries_cap=queries, **ids)
    async with place.client() as client:
        page = (await client.get(f"/jobs/{job.id}")).text
    for words in said:
        assert words in page


async def test_many_checkpoints_are_shown_evenly_spaced_and_said_so(full: SimpleNamespace) -> None:
    place: Place = full.place
    with read(place.house.engine) as connection:
        mine = (tables.checkpoints.c.job_id == full.job, tables.checkpoints.c.kind == "program")
        one = dict(connection.execute(select(tables.checkpoints).where(*mine)).mappings().one())
    with write(place.house.engine) as connection:
        copies = [one | {"id": f"ckpt_{n:04d}", "step": n} for n in range(one["step"] + 1, 200)]
        head = {"of": one["id"], "mapping": {"type": "linear"}, "fused": False}
        other = one | {"id": "ckpt_other", "step": -1, "config": head}  # no step of learning
        connection.execute(insert(tables.checkpoints), [*copies, other])
    shown, count = checkpoints.spread(place.house.engine, full.job, 60)
    steps = [found.step for found in shown]
    assert (count, len(steps), steps[0], steps[-1]) == (len(copies) + 1, 60, one["step"], 199)
    gaps = {b - a for a, b in pairwise(steps)}
    assert max(gaps) - min(gaps) <= 1
    async with place.client() as client:
        page = (await client.get(f"/jobs/{full.job}")).text
    assert f"Evolution over 60 of {count} checkpoints, evenly spaced" in page
    assert 'max="59"' in page


async def test_usage_adds_up_to_all_that_was_spent(full: SimpleNamespace) -> None:
    """What is in no line of a group has a line of its own."""
    place: Place = full.place
    ledger, asked = place.house.ledger, {"fence": 0, "price_micros": 1200, "purpose": "t"}
    for scope, images in ((full.job, 3), (full.connection, 1)):
        attempt = ledger.reserve(scope, full.connection, images=images, **asked)
        ledger.settle(attempt, [], billed=images, unknown=0, outcome="answered")
    async with place.client() as client:
        page = (await client.get("/usage?group_by=job")).text
    assert re.search(r"Not of a job: tests of connections.*?\$0\.0012<", page, re.DOTALL)
    assert re.search(r"All, USD</th><td class=\"num\"><strong>\$0\.0048<", page)


async def test_a_job_without_an_answered_test_image_has_a_page(full: SimpleNamespace) -> None:
    place: Place = full.place
    metrics = place.house.jobs.get(full.job).metrics
    none = metrics | {"test": {"images": 0, "unanswered": 40}, "baselines": {}}
    with write(place.house.engine) as connection:
        mine = tables.jobs.c.id == full.job
        connection.execute(update(tables.jobs).where(mine).values(metrics=none))
    async with place.client() as client:
        for path in ("/", "/jobs", f"/jobs/{full.job}", f"/compare?job={full.job}&job={full.other}"):
            answer = await client.get(path)
            assert answer.status_code == 200, path
        assert "no test image was answered" in (await client.get(f"/jobs/{full.job}")).text
