from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from api_house import CHECKPOINT_STEP, House, a_program, finish, is_problem

from app.jobs import artifact
from app.reprogramming import program as programs
from app.reprogramming.mapping import group_mapping


async def test_metrics_of_a_finished_job(house: House) -> None:
    job = await house.finished_job()
    best = job["metrics"]["best"]
    assert best["val_accuracy"] == pytest.approx(0.8)
    assert best["val_ci95"] == pytest.approx([0.652, 0.895], abs=2e-3)  # Wilson, 32 of 40
    assert best["checkpoint_id"].startswith("ckpt_")
    assert job["metrics"]["latest"]["train_loss"] == pytest.approx(1 / 3)
    assert job["cost"]["billable_queries"] == 24
    assert job["cost"]["spent"] == {"amount": "0.028800", "currency": "USD"}
    assert job["finished_at"] > job["started_at"] > job["created_at"]


async def test_the_curve_against_queries_cost_and_time(house: House) -> None:
    path = f"/v1/jobs/{(await house.finished_job())['id']}/metrics"
    by_queries = await house.ok("GET", path)
    assert [point["x"] for point in by_queries["data"]] == [8, 16, 24]
    assert by_queries["data"][0]["val_accuracy"] == pytest.approx(0.6)
    assert by_queries["data"][0]["val_ci95"] == pytest.approx([0.446, 0.737], abs=2e-3)  # Wilson, 24 of 40
    stored = await house.ok("GET", path.replace("metrics", "checkpoints"))
    assert stored["data"][0]["metrics"]["val_ci95"] == pytest.approx([0.652, 0.895], abs=2e-3)
    by_cost = await house.ok("GET", f"{path}?x=cost")
    assert [point["x"] for point in by_cost["data"]] == pytest.approx([0.0096, 0.0192, 0.0288])
    by_time = await house.ok("GET", f"{path}?x=time")
    assert all(point["x"] >= 0 for point in by_time["data"])
    is_problem(await house.client.get(f"{path}?x=luck"), 422, "invalid_request", "x")


async def test_a_long_curve_is_thinned(house: House) -> None:
    job, jobs = await house.job(), house.services.jobs
    held = jobs.begin(job["id"])
    assert held is not None
    for step in range(1, 64):
        jobs.save_state(
            job["id"], held.fence, step, b"", metrics={}, queries=step, spent_micros=step, phase="learn"
        )
    shown = await house.ok("GET", f"/v1/jobs/{job['id']}/metrics?points=10")
    steps = [point["step"] for point in shown["data"]]
    assert steps[0] == 1
    assert steps[-1] == 63
    assert 8 <= len(steps) <= 12


async def test_the_ledger_as_json_and_csv(house: House) -> None:
    path = f"/v1/jobs/{(await house.finished_job())['id']}/queries"
    page = await house.ok("GET", path)
    (line,) = page["data"]
    assert (line["images"], line["billed"], line["outcome"]) == (24, 24, "answered")
    assert line["cost"]["amount"] == "0.028800"
    for answer in (
        await house.client.get(f"{path}?format=csv"),
        await house.client.get(path, headers={"accept": "text/csv"}),
    ):
        assert answer.headers["content-type"].startswith("text/csv")
        (row,) = csv.DictReader(io.StringIO(answer.text))
        assert (row["billed"], row["cost"], row["currency"]) == ("24", "0.028800", "USD")
        assert row["request_id"] == "'=r1"  # no formula for a spreadsheet


async def test_events_and_their_pages(house: House) -> None:
    job = await house.finished_job()
    path = f"/v1/jobs/{job['id']}/events"
    seen, after = [], 0
    while True:
        page = await house.ok("GET", f"{path}?limit=3&after={after}")
        seen += page["data"]
        if not page["has_more"]:
            break
        after = page["next_cursor"]
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    assert seen[0]["type"] == "job.created"
    assert seen[-1]["type"] == "job.succeeded"
    assert all(event["id"].startswith("evt_") for event in seen)
    assert sorted(event["id"] for event in seen) == [event["id"] for event in seen]
    is_problem(await house.client.get("/v1/jobs/job_none/events"), 404, "not_found")


def messages(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


async def test_the_stream_goes_on_where_it_broke_off(house: House) -> None:
    job = await house.finished_job()
    path = f"/v1/jobs/{job['id']}/events/stream"
    whole = await house.client.get(path)
    assert whole.headers["content-type"].startswith("text/event-stream")
    told = [message for message in messages(whole.text) if "id" in message]
    assert [int(message["id"]) for message in told] == list(range(1, len(told) + 1))
    assert json.loads(told[-1]["data"])["type"] == "job.succeeded"
    rest = await house.client.get(path, headers={"last-event-id": told[2]["id"]})
    assert [m["id"] for m in messages(rest.text) if "id" in m] == [m["id"] for m in told[3:]]
    event_id = json.loads(told[-2]["data"])["id"]
    rest = await house.client.get(path, headers={"last-event-id": event_id})
    assert [m["id"] for m in messages(rest.text) if "id" in m] == [told[-1]["id"]]
    done = await house.client.get(path, headers={"last-event-id": told[-1]["id"]})
    assert (done.status_code, done.content) == (204, b"")
    bad = await house.client.get(path, headers={"last-event-id": "evt_x"})
    is_problem(bad, 422, "invalid_request", "Last-Event-ID")


async def test_the_stream_follows_a_running_job(house: House) -> None:
    job = await house.job()
    stream = asyncio.create_task(house.client.get(f"/v1/jobs/{job['id']}/events/stream"))
    await asyncio.sleep(0.3)
    assert not stream.done()
    await asyncio.to_thread(finish, house.services, job["id"])
    answer = await asyncio.wait_for(stream, 5)
    told = [message for message in messages(answer.text) if "id" in message]
    assert [int(message["id"]) for message in told] == list(range(1, len(told) + 1))
    assert told[-1]["event"] == "job.succeeded"
    assert any(message.get("event") == "job" for message in messages(answer.text))


async def test_checkpoints_mapping_and_pictures(house: House) -> None:
    job = await house.finished_job()
    path = f"/v1/jobs/{job['id']}"
    found = (await house.ok("GET", f"{path}/checkpoints"))["data"]
    assert [checkpoint["step"] for checkpoint in found] == list(range(CHECKPOINT_STEP, 0, -1))
    mapping = await house.ok("GET", f"{path}/mapping")
    assert mapping["checkpoint_id"] == found[0]["id"]
    assert mapping["rows"][0] | {"mean": 0, "scale": 1} == {
        "view": 0, "source_label": "nsfw", "mean": 0, "scale": 1, "weights": {"dark": 1.0, "light": 0.0},
    }  # fmt: skip
    assert len(mapping["rows"]) == 4
    picture = await house.client.get(f"{path}/program.png?checkpoint_id={found[1]['id']}")
    assert picture.content.startswith(b"\x89PNG")
    samples = await house.ok("GET", f"{path}/samples?limit=3")
    assert len(samples["data"]) == 3
    for sample in samples["data"]:
        assert sample["split"] == "test"
        assert len(sample["after"]) == 2
        for link in (sample["before"], *sample["after"]):
            image = await house.client.get(link)
            assert image.status_code == 200, image.text
            assert image.content.startswith(b"\x89PNG")
    is_problem(await house.client.get(f"{path}/samples/0.png?view=2"), 404, "not_found", "view")
    other = await house.job()
    is_problem(await house.client.get(f"/v1/jobs/{other['id']}/mapping"), 404, "no_program_yet")
    path = f"/v1/jobs/{other['id']}/mapping?checkpoint_id={found[0]['id']}"
    is_problem(await house.client.get(path), 404, "not_found", "checkpoint_id")


async def test_the_artifact_comes_back_in(house: House) -> None:
    job = await house.finished_job()
    answer = await house.client.get(f"/v1/jobs/{job['id']}/artifact")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = {"program.safetensors", "config.json", "README.md", "mapping.csv", "program.png"}
        assert set(archive.namelist()) == names
        config = json.loads(archive.read("config.json"))
        assert archive.read("program.safetensors") == programs.to_bytes(a_program())
        rows = list(csv.reader(io.StringIO(archive.read("mapping.csv").decode())))
        card = archive.read("README.md").decode()
    assert "| the program | 0.9000 | 0.8000 to 0.9500 |" in card
    assert "turns the source model `nsfw-recognition` of clarifai into a classifier of 2 classes" in card
    assert "One prediction asks 2 queries." in card
    assert config["connection"]["model"]["user_id"] == "clarifai"
    assert rows[0] == ["view", "source_label", "mean", "scale", "dark", "light"]
    assert config["connection"]["id"] == job["connection_id"]
    assert b"pat-0123456789abcdef" not in answer.content

    again = await house.client.get(f"/v1/jobs/{job['id']}/artifact")
    assert again.content == answer.content
    imported = await house.ok("POST", "/v1/artifacts/import", content=answer.content)
    assert (imported["status"], imported["status_reason"]) == ("succeeded", "imported")
    assert imported["metrics"]["test"] == job["metrics"]["test"]
    assert imported["metrics"]["best"]["val_ci95"] == job["metrics"]["best"]["val_ci95"]
    assert imported["dataset_id"] is None
    made = await house.ok("POST", "/v1/endpoints", json={"name": "copy", "job_id": imported["id"]})
    assert made["connection_id"] == job["connection_id"]
    is_problem(await house.client.post(f"/v1/jobs/{imported['id']}/clone"), 409, "invalid_state")
    assert (await house.client.get(f"/v1/jobs/{imported['id']}/samples")).status_code == 404


async def test_the_card_of_another_checkpoint_claims_nothing(house: House) -> None:
    job = await house.finished_job()
    saved = (await house.ok("GET", f"/v1/jobs/{job['id']}/checkpoints"))["data"]
    path = f"/v1/jobs/{job['id']}/artifact?checkpoint_id={saved[-1]['id']}"
    with zipfile.ZipFile(io.BytesIO((await house.client.get(path)).content)) as archive:
        card = archive.read("README.md").decode()
    assert "0.9000" not in card
    assert "not the program that the job tested" in card


def test_the_card_has_words_for_its_rivals() -> None:
    judged = {"accuracy": 0.5, "ci95": [0.4, 0.6]}
    metrics = {"test": judged, "baselines": {"raw_pixels": judged}, "verdict": {"sentence": "It helps."}}
    program = dataclasses.replace(a_program(), views=a_program().views[:1], mapping=group_mapping(np.eye(2)))
    card = artifact.card(program, {"metrics": metrics, "connection": {"provider": "custom_vision"}})
    assert "| your pixels alone: the best classic model on pixels; needs no API | 0.5000 |" in card
    assert "the source model of custom vision" in card
    assert "One prediction asks 1 query." in card
    assert "It helps." in card
    unanswered = {"metrics": {"test": {"images": 0, "unanswered": 9}, "baselines": {}}}
    assert "the program |" not in artifact.card(program, unanswered)


def repacked(archive: bytes, old: bytes, new: bytes) -> bytes:
    """The zip with `old` replaced in every member."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(old, new))
    return out.getvalue()


async def test_what_is_no_artifact(house: House) -> None:
    job = await house.finished_job()
    good = (await house.client.get(f"/v1/jobs/{job['id']}/artifact")).content
    for bad in (b"", b"PK\x03\x04", good[:200], repacked(good, b"reprog.program/1", b"reprog.program/9")):
        answer = await house.client.post("/v1/artifacts/import", content=bad)
        is_problem(answer, 422, "artifact_invalid")
    answer = await house.client.post("/v1/artifacts/import?connection_id=conn_none", content=good)
    is_problem(answer, 404, "not_found", "connection_id")
    is_problem(await house.client.post("/v1/artifacts/import", json={}), 415, "unsupported_type")
    other = await house.connection()
    house.services.connections.book(other["id"]).extend(["cat"])
    path = f"/v1/artifacts/import?connection_id={other['id']}"
    is_problem(await house.client.post(path, content=good), 422, "source_mismatch", "connection_id")
