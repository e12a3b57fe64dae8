"""What a user hears before and while money is spent, over REST and through the worker's own segments."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from stub_provider import LABELS, Stub

from app.api.application import create_app
from app.jobs import bench, report
from app.jobs.counsel import SCOUTS
from app.jobs.run import run_segment
from app.settings import Settings
from app.storage.jobs import Jobs
from app.wiring import House

PER_CLASS = 40


class Runner:
    """The test runs the segments itself."""

    def enqueue(self, job_id: str) -> None: ...
    def cancel(self, job_id: str) -> None: ...
    def running(self) -> list[str]:
        return []


class Source(Stub):
    """A model of two labels that says what `says` makes of the mean grey level."""

    def __init__(self, says: Callable[[float], float]) -> None:
        super().__init__()
        self.says = says

    def _output(self, ident: str, png: bytes, n: int) -> dict[str, Any]:
        output = super()._output(ident, png, n)
        level = float(np.asarray(Image.open(io.BytesIO(png))).mean()) / 255
        p = round(self.says(level), 6)
        output["data"]["concepts"] = [
            {"id": f"id_{name}", "name": name, "value": value}
            for name, value in zip(LABELS, (p, 1 - p), strict=True)
        ]
        return output


class Namer(Source):
    """It names the likelier label, and no score."""

    def _output(self, ident: str, png: bytes, n: int) -> dict[str, Any]:
        output = super()._output(ident, png, n)
        likelier = max(output["data"]["concepts"], key=lambda concept: concept["value"])
        output["data"]["concepts"] = [likelier | {"value": 1}]
        return output


class Place:
    """REST and worker of one installation, before one source model."""

    def __init__(self, house: House, source: Source) -> None:
        self.house, self.source = house, source
        app = create_app(replace(house.services(), runner=Runner()))
        self.rest = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", trust_env=False
        )

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        response = await self.rest.request(method, path, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    async def body(
        self, per_class: int = PER_CLASS, options: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        connection = {
            "name": "stub",
            "provider": "clarifai",
            "base_url": self.source.url,
            "model": {"model_id": "m"},
            "secret": "key",
            "price": {"per_1000": "1.20", "currency": "USD"},
            "limits": {"requests_per_second": 5000, "concurrency": 2, "max_batch": 16},
            "options": options or {},
        }
        made = await self.ok("POST", "/v1/connections", json=connection)
        data = await self.ok("POST", "/v1/datasets?name=d&seed=1", content=pictures(per_class))
        body = {"name": "j", "connection_id": made["id"], "dataset_id": data["id"]}
        method = {"type": "auto", "size": 16, "fused": False}
        return body | {"method": method, "limits": {"max_queries": 900, "queries_per_prediction": 2}} | more

    async def run(self, job: str) -> dict[str, Any]:
        bench = replace(self.house.bench(), stopping=lambda: False)
        while await run_segment(job, bench):
            pass
        return await self.ok("GET", f"/v1/jobs/{job}")

    async def events(self, job: str, kind: str) -> list[dict[str, Any]]:
        found = await self.ok("GET", f"/v1/jobs/{job}/events?limit=100")
        return [event["data"] for event in found["data"] if event["type"] == kind]


def pictures(per_class: int) -> bytes:
    """Dark and light, with noise that makes a fifth of them look like the other kind."""
    out, rng = io.BytesIO(), np.random.default_rng(3)
    with zipfile.ZipFile(out, "w") as archive:
        for name, middle in (("dark", 100), ("light", 150)):
            for n in range(per_class):
                base = int(np.clip(rng.normal(middle, 30), 10, 240))
                file = io.BytesIO()
                Image.fromarray(rng.integers(base - 10, base + 10, (8, 8, 3), np.uint8)).save(file, "PNG")
                archive.writestr(f"{name}/{n}.png", file.getvalue())
    return out.getvalue()


@asynccontextmanager
async def opened(
    folder: Path, says: Callable[[float], float] = lambda level: level, kind: type[Source] = Source
) -> AsyncGenerator[Place]:
    house = House(Settings(data_dir=folder, allow_private_hosts=True, secret_key="k"))  # type: ignore[arg-type]
    source = kind(says)
    async with source.serve():
        place = Place(house, source)
        async with place.rest:
            yield place
    house.engine.dispose()


@pytest.mark.parametrize("says", [lambda level: 0.5, lambda level: 1.0], ids=["constant", "one label"])
async def test_a_model_that_says_one_thing_costs_a_few_queries(
    tmp_path: Path, says: Callable[[float], float]
) -> None:
    async with opened(tmp_path, says) as place:
        job = await place.ok("POST", "/v1/jobs", json=await place.body())
        ended = await place.run(job["id"])
        assert (ended["status"], ended["status_reason"]) == ("failed", "constant_scores")
        assert place.source.bill == ended["cost"]["billable_queries"] <= SCOUTS
        assert "were not asked" in ended["error"]["hint"]


async def test_a_job_rests_after_the_probe_and_says_what_to_expect(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        limits = {"max_queries": 900, "queries_per_prediction": 2, "pause_after_probe": True}
        job = await place.ok("POST", "/v1/jobs", json=await place.body(limits=limits))
        rests = await place.run(job["id"])
        assert (rests["status"], rests["status_reason"]) == ("paused", "after_probe")
        expected = rests["metrics"]["expectation"]
        probe = round(0.8 * 2 * PER_CLASS)
        assert place.source.bill == expected["queries"] == rests["cost"]["billable_queries"] == probe
        low, high = expected["head"]["ci95"]
        assert low <= expected["head"]["val_accuracy"] <= high
        assert 0 <= expected["pixels"]["val_accuracy"] <= 1
        assert [line["queries_per_prediction"] for line in expected["expected"]] == [1, 2]
        for line in expected["expected"]:
            assert expected["head"]["val_accuracy"] - 1e-4 <= line["low"] <= line["likely"] <= line["high"]
        assert expected["left"]["queries"] > 0
        assert expected["sentence"]
        assert await place.events(job["id"], "job.expectation") == [expected]
        await place.ok("POST", f"/v1/jobs/{job['id']}/resume")
        ended = await place.run(job["id"])
        assert ended["status"] == "succeeded"
        assert ended["metrics"]["expectation"] == expected
        parts = ended["metrics"]["verdict"]["parts"]
        assert set(parts) == {"program", "pixels", "scores_and_pixels"}
        for name in ("auroc", "ece", "macro_f1", "balanced_accuracy"):
            low, high = ended["metrics"]["test"][f"{name}_ci95"]
            assert low <= ended["metrics"]["test"][name] <= high
            for rival in ("linear_head", "mapping_only"):
                beside = ended["metrics"]["baselines"][rival]
                assert beside[f"{name}_ci95"][0] <= beside[name] <= beside[f"{name}_ci95"][1]
        assert "auroc" not in ended["metrics"]["baselines"]["raw_pixels"]
        curve = await place.ok("GET", f"/v1/jobs/{job['id']}/metrics")
        judged = [point for point in curve["data"] if "val_accuracy" in point]
        assert (curve["forecast"] is None) is (len(judged) < 3)
        made = await place.ok("POST", f"/v1/jobs/{job['id']}/evaluations", json={"fused": True})
        assert made["queries"] == 0
        assert place.source.bill == ended["cost"]["billable_queries"]
        body = {"name": "fused", "job_id": job["id"], "checkpoint_id": made["checkpoint_id"]}
        await place.ok("POST", "/v1/endpoints", json=body)
        for level, name in ((40, "dark"), (215, "light")):
            out = io.BytesIO()
            Image.new("RGB", (8, 8), (level,) * 3).save(out, "PNG")
            told = await place.ok(
                "POST",
                "/v1/endpoints/fused/predict",
                content=out.getvalue(),
                headers={"content-type": "image/png"},
            )
            assert told[0]["label"] == name
            assert sum(line["score"] for line in told) == pytest.approx(1)
        await place.house.predictor.close()


async def test_probes_lost_in_rounding_are_told(tmp_path: Path) -> None:
    method = {
        "type": "spsa", "smoothing": 1e-6, "repeats": 1, "batch_size": 4,
        "program": {"size": 16, "resolution": "pixel"},
    }  # fmt: skip
    async with opened(tmp_path) as place:
        job = await place.ok("POST", "/v1/jobs", json=await place.body(method=method))
        ended = await place.run(job["id"])
        assert ended["status"] == "succeeded"
        codes = [concern["code"] for concern in ended["metrics"]["warnings"]]
        assert "probes_lost_in_rounding" in codes
        told = await place.events(job["id"], "job.warning")
        assert [concern["code"] for concern in told] == codes
        assert ended["metrics"]["latest"]["step"] > 0


async def test_a_quote_warns_of_small_classes_and_refuses_a_small_budget(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        body = await place.body(per_class=4)
        quote = await place.ok("POST", "/v1/jobs/quote", json=body)
        assert [line["code"] for line in quote["warnings"]] == ["small_class", "small_class"]
        assert "send 1 more" in quote["warnings"][0]["hint"]
        assert all(stage["seconds"] >= 0 for stage in quote["stages"])
        short = body | {"limits": {"max_queries": 3}}
        refused = await place.rest.post("/v1/jobs/quote", json=short)
        assert refused.status_code == 422
        assert refused.json()["code"] == "budget_too_small"
        least = int(refused.json()["hint"].split("at least ")[1].split()[0])
        await place.ok("POST", "/v1/jobs/quote", json=body | {"limits": {"max_queries": least}})
        assert place.source.bill == 0


def shades(classes: int) -> bytes:
    """Five pictures of each of so many grey levels."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for level in range(classes):
            for n in range(5):
                file = io.BytesIO()
                Image.fromarray(np.full((8, 8, 3), 40 * level + 3 * n, np.uint8)).save(file, "PNG")
                archive.writestr(f"shade {level}/{n}.png", file.getvalue())
    return out.getvalue()


async def test_few_source_labels_are_warned_of_with_the_number_that_would_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        body = await place.body()
        await place.ok("POST", f"/v1/connections/{body['connection_id']}/test")
        data = await place.ok("POST", "/v1/datasets?name=shades&seed=1", content=shades(5))
        many = body | {"dataset_id": data["id"]}
        quote = await place.ok("POST", "/v1/jobs/quote", json=many)
        [warning] = [line for line in quote["warnings"] if line["code"] == "few_source_labels"]
        assert warning["hint"].startswith("4 queries per prediction")
        limits = {"max_queries": 900, "queries_per_prediction": 4}
        enough = await place.ok("POST", "/v1/jobs/quote", json=many | {"limits": limits})
        assert "few_source_labels" not in {line["code"] for line in enough["warnings"]}


@pytest.mark.parametrize("tested", [True, False], ids=["labels known", "labels learned by the probe"])
async def test_hard_labels_too_few_for_the_classes_are_refused_with_the_number_that_would_do(
    tmp_path: Path, tested: bool
) -> None:
    """Two labels under two views make four patterns, for five classes. Before money is spent where the
    labels are known."""
    async with opened(tmp_path, kind=Namer) as place:
        body = await place.body(options={"score_kind": "label"})
        if tested:
            await place.ok("POST", f"/v1/connections/{body['connection_id']}/test")
        data = await place.ok("POST", "/v1/datasets?name=shades&seed=1", content=shades(5))
        spent = place.source.bill
        job = body | {"dataset_id": data["id"]}
        posted = await place.rest.post("/v1/jobs", json=job)
        if tested:
            assert posted.status_code == 422
            refusal = posted.json()
        else:
            ended = await place.run(posted.json()["id"])
            assert (ended["status"], ended["status_reason"]) == ("failed", "too_many_classes")
            refusal = ended["error"]
        assert refusal["code"] == "too_many_classes"
        assert refusal["param"] == "limits.queries_per_prediction"
        assert refusal["hint"] == "Allow 3 queries per prediction at least."
        assert place.source.bill - spent <= (0 if tested else 20)
        limits = {"max_queries": 900, "queries_per_prediction": 3}
        enough = await place.ok("POST", "/v1/jobs", json=job | {"limits": limits})
        ended = await place.run(enough["id"])
        assert ended["status"] == "succeeded", ended["error"]


async def test_what_a_job_does_at_its_end_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading its answers back, and the verdict, ask nothing and may take long."""
    phases: list[str] = []
    write, judge, render = Jobs.progress, report.judge, bench.render_many

    def noted(jobs: Jobs, ident: str, fence: int, progress: dict[str, Any]) -> None:
        phases.append(progress["phase"])
        write(jobs, ident, fence, progress)

    def slow(work: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*given: Any) -> Any:
            time.sleep(0.05)
            return work(*given)

        return slowly

    monkeypatch.setattr(Jobs, "progress", noted)
    monkeypatch.setattr(bench, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(report, "judge", slow(judge))
    monkeypatch.setattr(bench, "render_many", slow(render))
    async with opened(tmp_path) as place:
        job = await place.ok("POST", "/v1/jobs", json=await place.body())
        assert (await place.run(job["id"]))["status"] == "succeeded"
    seen = list(dict.fromkeys(phases))
    assert seen[0] == "probe"
    assert seen[-3:] == ["test", "recall", "verdict"]
