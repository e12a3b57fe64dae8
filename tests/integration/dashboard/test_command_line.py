"""`reprog` resource verbs against the service itself: each is one operation of the REST surface, and each
operation is a verb."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jsonschema
import pytest
import typer
import uvicorn
import yaml
from dashboard_place import Place
from PIL import Image
from rest_fields import body_fields, query_fields
from typer.testing import CliRunner, Result

from app.api.openapi import dump
from app.cli import app as cli
from app.jobs.schema import job_schema
from app.remote import GROUPS

ROOT = Path(__file__).parents[3]
#: Operations that no verb covers, and why.
NO_VERB = {r"(GET|POST) /v2.*": "a wire format of others, for their clients",
           r"(GET|POST) /compat/.*": "a wire format of others, for their clients"}  # fmt: skip
#: Verbs that ask nothing of the service.
OFFLINE = {"jobs schema"}
#: Verbs whose answer is JSON lines or JSON without being told.
ALWAYS_JSON = {"jobs schema"}

#: Lines of verbs that need stored answers, which this place has none of; tests/acceptance runs them.
UNANSWERED = """
jobs evaluate {job} --mapping bayesian --top 2 --labels-per-class 3 --fused --test --checkpoint {checkpoint}
jobs evaluation {job} {checkpoint}
"""
#: Lines that answer CSV.
NOT_JSON = {"audit list --csv"}
#: (operation, field) that no verb says, and why.
UNSAID = {("GET /v1/jobs/{job_id}/events/stream", "after"): "said as Last-Event-ID"}

LINES = """
connections create -f {connection_file}
connections list --after {connection}
connections get {connection}
connections update {connection} --name renamed --price 1.30 --budget 50
connections test {connection} --probes --repeats 2
connections labels {connection}
connections providers
connections delete {spare}
datasets upload {archive} --format zip --seed 3 --background black --allow leaks --name again
datasets upload {table} --format table --label-column kind
datasets upload {pictures} {picture_labels}
datasets list --after {dataset}
datasets get {dataset}
datasets report {dataset}
datasets items {dataset} --split test --label 3 --limit 5 --after 1
datasets image {dataset} 3 -o {out}
datasets delete {old_dataset}
jobs schema
jobs quote -f {job_file}
jobs create -f {job_file} --idempotency-key one
jobs list --limit 5
jobs list --after {other} --status succeeded --status failed --connection {connection}
jobs get {job}
jobs watch {job}
jobs update {fresh} --budget 7.50 --max-queries 4000 --name other
jobs pause {fresh}
jobs resume {fresh}
jobs cancel {fresh}
jobs clone {fresh} --seed 9 --name twin
jobs events {job}
jobs events {job} --follow
jobs events {job} --after 1
jobs metrics {job} --x cost --points 9
jobs queries {job} --limit 3 --after 0
jobs queries {job} --csv {out}
jobs checkpoints {job} --after {checkpoint}
jobs evaluations {job} --after {checkpoint}
jobs mapping {job} --checkpoint {checkpoint}
jobs picture {job} -o {out} --checkpoint {checkpoint}
jobs samples {job} --limit 2 --checkpoint {checkpoint}
jobs sample {job} {n} -o {out} --view 0 --checkpoint {checkpoint}
jobs artifact {job} -o {artifact} --checkpoint {checkpoint}
jobs import {artifact} --name back --connection {connection}
jobs delete {fresh}
endpoints create -f {endpoint_file}
endpoints list --after ep_z
endpoints get digits
endpoints update digits --version 1 --disable --budget 3
endpoints update digits --enable
endpoints versions digits --after 9
endpoints predict digits {image}
endpoints predict digits -f {predict_file}
endpoints delete digits
keys create --name ci --scope read --scope spend
keys list --after {key}
keys get {key}
keys update {key} --name other --budget 5 --requests-per-second 3
keys delete {key}
webhooks create http://127.0.0.1:9/hook --name hook --event job.*
webhooks list --after {webhook}
webhooks get {webhook}
webhooks update {webhook} --name other --off --url http://127.0.0.1:9/else --event job.paused
webhooks rotate {webhook} --keep-hours 2
webhooks test {webhook}
webhooks deliveries {webhook} --limit 5 --after {delivery} --status pending
webhooks redeliver {webhook} {delivery}
webhooks delete {webhook}
service status
audit list --limit 5 --after 9 --key local --action create_job --since {since} --until {until}
audit list --csv
service methods
service usage --group-by day --since {since} --until {until}
service metrics
"""


class Shell:
    """The command line, and what it asked of the service: operations, and the fields said to each."""

    def __init__(self) -> None:
        self.operations: set[str] = set()
        self.said: dict[str, set[str]] = defaultdict(set)

    def hear(self, scope: Any, body: bytes) -> None:
        asked = operation(scope["method"], scope["path"])
        self.operations.add(asked)
        self.said[asked] |= {name for name, _ in parse_qsl(scope["query_string"].decode(), True)}
        self.said[asked] |= {one.decode() for one in re.findall(rb'form-data; name="(\w+)"', body)}
        if body.startswith(b"{"):
            self.said[asked] |= leaves(json.loads(body))

    def run(self, line: str) -> Result:
        return CliRunner().invoke(cli, line.split(), catch_exceptions=False)


@pytest.fixture
def shell(full: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """The command line with the place's service behind it, over HTTP."""
    made, inner = Shell(), full.place.app

    async def heard(scope: Any, receive: Any, send: Any) -> None:
        body = bytearray()

        async def listening() -> Any:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def answering(message: Any) -> None:
            if message["type"] == "http.response.start":
                made.hear(scope, bytes(body))
            await send(message)

        await inner(scope, listening, answering)

    server = uvicorn.Server(uvicorn.Config(heard, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    monkeypatch.setenv("REPROG_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("CLI_TEST_SECRET", "not-to-be-seen-4711")
    yield made
    server.should_exit = True
    thread.join(10)


_PATHS: dict[str, Any] = json.loads(dump())["paths"]
_TEMPLATES = sorted(_PATHS, key=lambda path: (path.count("{"), -len(path)))


def operation(method: str, path: str) -> str:
    """METHOD and the path's template."""
    for template in _TEMPLATES:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return f"{method} {template}"
    return f"{method} {path}"


def leaves(document: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted paths of every member, those of inner objects included."""
    found: set[str] = set()
    for name, value in document.items():
        found |= {prefix + name} | (leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else set())
    return found


def by_file() -> set[str]:
    """Verbs that take the body as a file: whatever REST knows can be said in it."""
    groups: Any = typer.main.get_command(cli)
    return {
        f"{name} {verb}"
        for name in GROUPS
        for verb, command in groups.commands[name].commands.items()
        if any("--file" in parameter.opts for parameter in command.params)
    }


def verbs() -> set[str]:
    """Every verb that is there."""
    return {
        f"{name} {command.name}" for name, group in GROUPS.items() for command in group.registered_commands
    }


@pytest.fixture
def names(full: SimpleNamespace, tmp_path: Path) -> dict[str, str]:
    """What LINES are filled with."""
    place: Place = full.place

    async def probe(*_: object, **__: object) -> dict[str, Any]:
        return {"labels": ["safe", "not safe"], "latency_ms": 12.0, "model_version": "v1", "score_kind": "p",
                "cost_micros": 1200, "queries": 1}  # fmt: skip

    place.app.state.services = dataclasses.replace(place.app.state.services, probe=probe)
    files = {
        "connection_file": {"name": "c", "provider": "http_json", "base_url": "http://127.0.0.1:1",
                            "model": {}, "price": {"per_1000": "0"}},
        "job_file": {"name": "j", "connection_id": full.connection, "dataset_id": full.dataset,
                     "method": {"type": "baseline"}, "limits": {"max_queries": 500}},
        "endpoint_file": {"name": "second", "job_id": full.job},
    }  # fmt: skip
    provider = {"user_id": "u", "app_id": "a", "model_id": "m"}
    files["connection_file"] |= {"provider": "clarifai", "model": provider, "secret": "${CLI_TEST_SECRET}"}
    for name, body in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(body))
    (tmp_path / "predict_file").write_text('{"inputs": "aGVsbG8="}')
    first = place.house.datasets.get(full.dataset).images()
    found = {name: str(tmp_path / name) for name in (*files, "predict_file", "out", "artifact", "image")}
    (tmp_path / "image").write_bytes(b"an image")
    (tmp_path / "rows.csv").write_text("a,b,kind\n" + "".join(f"{n},{n % 3},{n % 2}\n" for n in range(40)))
    pictures = [tmp_path / f"{n}.png" for n in range(12)]
    for n, path in enumerate(pictures):
        Image.new("RGB", (8, 8), (20 * n, 40, 60)).save(path)
    hook, _ = place.house.webhooks.create("old", "http://127.0.0.1:9/hook", [])
    return found | {
        "connection": full.connection,
        "spare": place.connection(),
        "dataset": full.dataset,
        "old_dataset": place.dataset(),
        "table": str(tmp_path / "rows.csv"),
        "pictures": " ".join(map(str, pictures)),
        "picture_labels": " ".join(f"--label {'cat' if n % 2 else 'dog'}" for n in range(len(pictures))),
        "other": full.other,
        "since": "2026-01-01T00:00:00Z",
        "until": "2099-01-01T00:00:00Z",
        "checkpoint": place.house.jobs.latest_program(full.job).id,
        "archive": str(place.folder / "digits.zip"),
        "job": full.job,
        "fresh": full.fresh,
        "n": str(first["train"] + first["val"]),
        "webhook": hook.id,
        "delivery": place.house.webhooks.test(hook.id).id,
        "key": place.house.keys.create("old", ["read"])[0].id,
    }


def test_every_operation_is_a_verb_and_every_verb_an_operation(shell: Shell, names: dict[str, str]) -> None:
    used, asked, free = set[str](), set[str](), set[str]()
    for line in filter(None, (LINES + UNANSWERED).split("\n")):
        verb = " ".join(line.split()[:2])
        shell.operations.clear()
        plain = verb in ALWAYS_JSON or line in NOT_JSON
        done = shell.run(f"{line.format(**names)}{'' if plain else ' --json'}")
        assert done.exit_code == (3 if line in UNANSWERED else 0), (line, done.output)
        assert "not-to-be-seen" not in done.output
        if line not in UNANSWERED and line not in NOT_JSON:
            read_json(done.stdout)
        assert bool(shell.operations) is (verb not in OFFLINE), line
        used.add(verb)
        asked |= shell.operations
        free |= shell.operations if verb in by_file() else set()
    assert verbs() == used
    offered = {f"{m.upper()} {path}" for path, methods in _PATHS.items() for m in methods}
    without = {one for one in offered if any(re.fullmatch(rule, one) for rule in NO_VERB)}
    assert offered - without - asked == set(), "operations without a verb"
    assert asked - offered == set(), "a verb asks for what is not offered"
    fields = {(one, field) for one in offered - without for field in query_fields(one)}
    fields |= {(one, field) for one in offered - without - free for field in body_fields(one)}
    said = {(one, field) for one, known in shell.said.items() for field in known}
    assert fields - said == set(UNSAID), "fields that no verb can say, or that one can say by now"


def test_the_page_on_the_command_line_names_every_verb() -> None:
    rows = re.findall(
        r"^\| `reprog (\w+)` \| `(.*)` \|$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE
    )
    told = {f"{group} {verb.split()[0]}" for group, listed in rows for verb in re.split(", ", listed)}
    assert verbs() - told == set()
    assert told - verbs() == set()


def read_json(text: str) -> None:
    """One document, or one a line."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


def test_every_verb_speaks_to_people_too(shell: Shell, names: dict[str, str]) -> None:
    for line in filter(None, LINES.split("\n")):
        done = shell.run(line.format(**names))
        assert done.exit_code == 0, (line, done.output)
        assert done.output.strip(), line


def test_a_watch_ends_with_a_closing_line_and_the_jobs_exit_code(full: SimpleNamespace, shell: Shell) -> None:
    done = shell.run(f"jobs watch {full.job} --json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["closing"] is True
    assert lines[-1]["status"] == "succeeded"
    assert lines[-1]["cost"]["spent"]["currency"] == "USD"
    assert "Adds 12 points." in lines[-1]["metrics"]["verdict"]["sentence"]
    assert shell.run(f"jobs pause {full.fresh}").exit_code == 0
    assert shell.run(f"jobs watch {full.fresh}").exit_code == 6
    assert shell.run(f"jobs cancel {full.fresh}").exit_code == 0
    assert shell.run(f"jobs watch {full.fresh}").exit_code == 5


def test_a_request_without_an_answer_says_how_to_hear_it(
    full: SimpleNamespace, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody may wonder whether a job was started, and start it twice."""
    file = tmp_path / "job.yaml"
    file.write_text(f"{{name: j, connection_id: {full.connection}, dataset_id: {full.dataset}}}")

    def silent(*_: object, **__: object) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    monkeypatch.setattr(httpx.Client, "request", silent)
    lost = shell.run(f"jobs create -f {file}")
    assert lost.exit_code == 4
    assert re.search(r"--idempotency-key \w{32}", lost.stderr), lost.stderr
    lost = shell.run("jobs list")
    assert lost.exit_code == 4
    assert "idempotency" not in lost.stderr


def test_refusals_have_their_exit_codes(
    full: SimpleNamespace, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = shell.run("jobs get job_none")
    assert gone.exit_code == 3
    assert "[not_found]" in gone.stderr
    assert shell.run(f"jobs update {full.job}").exit_code == 2
    assert shell.run("jobs create -f /does/not/exist").exit_code == 2
    assert shell.run("endpoints predict digits").exit_code == 2
    monkeypatch.setenv("REPROG_URL", "http://127.0.0.1:1")
    assert shell.run("jobs list").exit_code == 4


def test_the_same_key_makes_one_job(shell: Shell, names: dict[str, str]) -> None:
    line = f"jobs create -f {names['job_file']} --idempotency-key build-7 --json"
    first, second = (json.loads(shell.run(line).stdout)["id"] for _ in range(2))
    assert first == second


# ---------------------------------------------------------------- the schema of job files


def test_the_published_schema_is_this_one() -> None:
    kept = json.loads((ROOT / "docs" / "job.schema.json").read_text())
    assert kept == job_schema(), "run `reprog jobs schema > docs/job.schema.json`"


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"method": {"type": "bar", "directions": 3, "program": {"size": 128}}}, True),
        ({"method": {"type": "auto", "size": 128}}, True),
        ({"method": {"type": "bar", "views": 3}}, False),
        ({"method": {"type": "unheard_of"}}, False),
        ({"limits": {"max_queries": 0}}, False),
        ({"limits": {"budget": {"amount": "five"}}}, False),
        ({"colour": "blue"}, False),
        ({"publish": {"name": "Not Small"}}, False),
    ],
)
def test_the_schema_says_what_the_service_says(
    full: SimpleNamespace, shell: Shell, tmp_path: Path, change: dict[str, Any], right: bool
) -> None:
    limits = {"max_queries": 5000}
    body = {"name": "x", "connection_id": full.connection, "dataset_id": full.dataset, "limits": limits}
    body |= change
    schema = job_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(body) is right
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(body))
    code = shell.run(f"jobs quote -f {tmp_path}/job.yaml").exit_code
    assert (code == 0) is right
