"""Rows, series and sequences from file to endpoint, and raw JSON to predict: by REST, against the sandbox."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from service import Service, running_service

from app.jobs import samples
from app.sandbox.server import SandboxConfig, running

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with (
        running(SandboxConfig(size=128, rate_limit_rps=0)) as url,
        running_service(tmp_path_factory.mktemp("records")) as service,
    ):
        service.connect(url, name="moderation")
        yield service


def table(n: int = 120) -> str:
    """Two noisy numbers decide; a colour, a useless id and missing cells are beside them."""
    rng = np.random.default_rng(3)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "size", "weight", "colour", "label"])
    for i in range(n):
        size, weight = rng.normal(0, 1, 2)
        colour = ["red", "green", "blue"][i % 3]
        cells = [f"{size:.3f}", "" if i % 11 == 0 else f"{weight:.3f}", colour]
        writer.writerow([i, *cells, "big" if size + 0.3 * rng.normal() > 0 else "small"])
    return out.getvalue()


def finished(service: Service, text: str, name: str, expect: str, **query: str) -> dict[str, Any]:
    """Upload, learn in a few queries, publish: the job, done."""
    dataset = service.ok(
        "POST",
        "/v1/datasets",
        params={"name": name, **query},
        content=text.encode(),
        headers={"content-type": "text/csv"},
    )
    assert dataset["report"]["records"]["kind"] == expect
    connection = service.ok("GET", "/v1/connections")["data"][0]
    job = service.create(
        connection,
        dataset,
        method={"type": "race", "size": 128},
        limits={"max_queries": 700, "queries_per_prediction": 2},
        publish={"name": name},
    )
    return service.wait(job, "succeeded")


def predict(service: Service, name: str, body: dict[str, Any]) -> Any:
    return service.client.post(f"/v1/endpoints/{name}/predict", json=body)


def check(service: Service, job: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Raw test records get the labels that the report counted, at no cost; so does their picture."""
    items = service.ok(
        "GET", f"/v1/datasets/{job['dataset_id']}/items", params={"split": "test", "limit": 32}
    )
    answer = predict(service, name, {"inputs": [item["input"] for item in items["data"]]})
    assert answer.status_code == 200, answer.text
    right = [
        found[0]["label"] == item["label"] for found, item in zip(answer.json(), items["data"], strict=True)
    ]
    tested = job["metrics"]["test"]
    if not items["has_more"]:
        assert np.mean(right) == pytest.approx(tested["accuracy"], abs=1e-6)
    assert int(answer.headers["x-remote-queries"]) == 0, "asked before, at the test: free"
    picture = service.client.get(items["data"][0]["image"]).content
    by_picture = service.client.post(f"/v1/endpoints/{name}/predict", content=picture)
    for drawn, raw in zip(by_picture.json(), answer.json()[0], strict=True):
        assert drawn == {"label": raw["label"], "score": pytest.approx(raw["score"])}
    return items["data"]


def say_what_it_takes(service: Service, name: str, words: str) -> dict[str, Any]:
    """The endpoint's `input`; its example is read by REST, by the page's form and by the line to copy."""
    takes = service.ok("GET", f"/v1/endpoints/{name}")["input"]
    body = {"inputs": [takes["example"]]}
    answer = predict(service, name, body)
    assert answer.status_code == 200, answer.text
    [best, *_], *others = answer.json()
    assert others == []
    home = {"origin": str(service.client.base_url).rstrip("/")}
    page = service.client.get(f"/endpoints/{name}").text
    assert words in page
    offered = html.unescape(re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)[0])
    assert json.loads(offered) == body
    shown = service.client.post(f"/endpoints/{name}/predict", files={"inputs": (None, offered)}, headers=home)
    assert f"<span>{best['label']}</span>" in shown.text
    assert "0 queries paid" in shown.text
    wrong = {"inputs": (None, '{"inputs": [{"strange": 1}]}')}
    refused = service.client.post(f"/endpoints/{name}/predict", files=wrong, headers=home)
    assert (refused.status_code, "strange&#34;: 1}]}</textarea>" in refused.text) == (422, True), refused.text
    assert 'role="alert"' in refused.text
    snippets = re.findall(r"<h3>([\w ]+)</h3><div class=\"copy\"><pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert [title for title, _ in snippets] == ["curl", "Python"]
    for command, (_, text) in zip((["bash", "-c"], [sys.executable, "-c"]), snippets, strict=True):
        line = [*command, html.unescape(text)]
        quiet = os.environ | {"no_proxy": "127.0.0.1"}
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True, env=quiet)
        assert best["label"] in done.stdout, done.stdout + done.stderr
    return takes


def test_rows_of_a_table(service: Service) -> None:
    job = finished(service, table(), "rows", "table")
    raw = job["metrics"]["baselines"]["raw_pixels"]
    assert raw["accuracy"] >= 0.75, "fitted on the numbers themselves"
    check(service, job, "rows")
    takes = say_what_it_takes(service, "rows", "takes rows of a table")
    assert [(one["name"], one["type"]) for one in takes["columns"]] == [
        ("size", "number"), ("weight", "number"), ("colour", "category"),
    ]  # fmt: skip
    assert takes["columns"][2]["values"] == ["blue", "green", "red"]
    one = predict(service, "rows", {"inputs": {"size": 2.5, "weight": None, "colour": "red"}})
    assert {found["label"] for found in one.json()} == {"big", "small"}
    assert predict(service, "rows", {"inputs": [2.5, 0.1, "RED"]}).status_code == 200
    for body, said in (
        ({"inputs": {"size": 1.0}}, "'weight', 'colour'"),
        ({"inputs": {"size": 1, "weight": 1, "colour": "red", "taste": 1}}, "'taste'"),
        ({"inputs": [[1.0]]}, "1 cells, not 3"),
        ({"inputs": {"size": "much", "weight": 1, "colour": "red"}}, "'much'"),
        ({"inputs": "iVBORw0KGgo="}, "no row"),
    ):
        refused = predict(service, "rows", body)
        assert (refused.status_code, refused.json()["code"]) == (422, "wrong_shape"), refused.text
        assert said in refused.json()["detail"]


def test_symbol_sequences(service: Service) -> None:
    job = finished(service, samples.motifs(200, 0), "dna", "sequence")
    assert job["metrics"]["baselines"]["raw_pixels"]["accuracy"] > 0.6
    check(service, job, "dna")
    takes = say_what_it_takes(service, "dna", "takes sequences")
    assert (takes["kind"], takes["length"], takes["fixed"]) == ("sequence", 60, True)
    refused = predict(service, "dna", {"inputs": ["ACGT"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "wrong_shape")
    assert "4 symbols, not 60" in refused.json()["detail"]
    photo = io.BytesIO()
    Image.fromarray(samples.digits(1).images[0]).save(photo, "PNG")
    refused = service.client.post("/v1/endpoints/dna/predict", content=photo.getvalue())
    assert "takes a sequence" in refused.json()["detail"]


def test_series(service: Service) -> None:
    job = finished(service, samples.beats(160, 0), "beats", "series")
    check(service, job, "beats")
    takes = say_what_it_takes(service, "beats", "takes series")
    assert (takes["kind"], takes["length"], takes["fixed"]) == ("series", 64, True)
    single = predict(service, "beats", {"inputs": [None, *np.sin(np.arange(63) / 5).tolist()]})
    assert [set(found) for found in single.json()] == [{"label", "score"}] * 2
    refused = predict(service, "beats", {"inputs": [[1, 2, 3]]})
    assert "3 values, not 64" in refused.json()["detail"]

    artifact = service.client.get(f"/v1/jobs/{job['id']}/artifact").content
    taken = service.ok("POST", "/v1/artifacts/import", content=artifact)
    service.ok("POST", "/v1/endpoints", json={"name": "copy", "job_id": taken["id"]})
    wave = {"inputs": [np.cos(np.arange(64) / 4).tolist()]}
    assert predict(service, "copy", wave).json() == predict(service, "beats", wave).json()
