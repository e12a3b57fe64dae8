"""`reprog jobs`: quote, start, follow, steer, and everything that came out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from app.jobs.schema import job_schema
from app.remote.client import (
    After,
    Body,
    Change,
    Json,
    Limit,
    Repeat,
    call,
    client,
    money,
    patch,
    read_body,
    refuse,
    resource,
    save,
    show,
)
from app.remote.watch import watch

_COLUMNS = ("id", "name", "status", "status_reason", "cost.spent")
_STATE = ("id", "status", "status_reason")
_EVALUATION = (
    "checkpoint_id", "mapping.type", "fused", "metrics.val_accuracy", "metrics.val_ci95",
    "metrics.test.accuracy", "metrics.test.ci95",
)  # fmt: skip
Checkpoint = Annotated[str | None, typer.Option("--checkpoint", help="Default: the finished or best one.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="File to write.")]

group = resource("jobs", _COLUMNS, filtered=True)


@group.command("list")
def list_jobs(
    limit: Limit = 20,
    after: After = None,
    status: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")
    ] = None,
    connection_id: Annotated[str | None, typer.Option("--connection", help="Only of this account.")] = None,
    as_json: Json = False,
) -> None:
    """List them, newest first."""
    asked = {"limit": limit, "after": after, "status": status or None, "connection_id": connection_id}
    show(call("GET", "/v1/jobs", params=asked).json(), as_json, _COLUMNS)


@group.command("schema")
def schema() -> None:
    """The JSON schema of a job file, every method's options included. Asks no service."""
    typer.echo(json.dumps(job_schema(), indent=2))


@group.command("quote")
def quote(file: Body, as_json: Json = False) -> None:
    """What the job in FILE would ask and cost."""
    columns = ("queries.planned", "cost.planned", "cost.limit", "wall_time_seconds.p50")
    show(call("POST", "/v1/jobs/quote", json=read_body(file)).json(), as_json, columns)


@group.command("create")
def create(
    file: Body,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to the end.")] = False,
    key: Repeat = None,
    as_json: Json = False,
) -> None:
    """Create a job from a file."""
    job = call("POST", "/v1/jobs", key=key, json=read_body(file)).json()
    if watch_it:
        watch(job["id"], as_json)
    show(job, as_json, _STATE)


@group.command("watch")
def watch_job(ident: str, as_json: Json = False) -> None:
    """Follow a job: a bar, or JSON lines with a closing line. Ctrl-C detaches, the job goes on."""
    watch(ident, as_json)


@group.command("update")
def update(
    ident: str,
    file: Change = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    budget: Annotated[str | None, typer.Option(help="Most money: '9.00' or '9.00 EUR'.")] = None,
    max_queries: Annotated[int | None, typer.Option(help="Most queries.")] = None,
    as_json: Json = False,
) -> None:
    """Raise or lower the limits, or rename it."""
    limits = {
        k: v for k, v in (("budget", money(budget) if budget else None), ("max_queries", max_queries)) if v
    }
    answer = call("PATCH", f"/v1/jobs/{ident}", json=patch(file, name=name, limits=limits or None))
    show(answer.json(), as_json, _COLUMNS)


def _act(action: str) -> None:
    @group.command(action, help=f"{action.capitalize()} a job.")
    def act(ident: str, as_json: Json = False) -> None:
        show(call("POST", f"/v1/jobs/{ident}/{action}").json(), as_json, _STATE)


for _action in ("pause", "resume", "cancel"):
    _act(_action)


@group.command("clone")
def clone(
    ident: str,
    name: Annotated[str | None, typer.Option(help="Default: the same.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the same.")] = None,
    as_json: Json = False,
) -> None:
    """The same job again; what is the same is not paid twice."""
    given = {k: v for k, v in (("name", name), ("seed", seed)) if v is not None}
    show(call("POST", f"/v1/jobs/{ident}/clone", json=given).json(), as_json, _STATE)


@group.command("events")
def events(
    ident: str,
    after: Annotated[int, typer.Option(help="Only events after this number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more until the job is over.")] = False,
    as_json: Json = True,
) -> None:
    """The events of a job as JSON lines."""
    for event in _stream(ident, after) if follow else _pages(ident, after):
        typer.echo(json.dumps(event))


def _pages(ident: str, after: int) -> Iterator[dict[str, Any]]:
    cursor: int | str | None = after
    while cursor is not None:
        page = call("GET", f"/v1/jobs/{ident}/events", params={"after": cursor, "limit": 100}).json()
        yield from page["data"]
        cursor = page["next_cursor"] if page["has_more"] else None


def _stream(ident: str, after: int) -> Iterator[dict[str, Any]]:
    """Server-sent events; a connection that breaks is taken up where it was. 204 is the end."""
    last = str(after)
    while True:
        try:
            with (
                client() as connection,
                connection.stream(
                    "GET", f"/v1/jobs/{ident}/events/stream", headers={"last-event-id": last}
                ) as answer,
            ):
                if answer.status_code == 204:
                    return
                if not answer.is_success:
                    answer.read()
                    refuse(answer)
                for line in answer.iter_lines():
                    if line.startswith("id:"):
                        last = line[3:].strip()
                    elif line.startswith("data:"):
                        yield json.loads(line[5:])
        except KeyboardInterrupt:
            return
        except httpx.RemoteProtocolError:
            continue


@group.command("metrics")
def metrics(
    ident: str,
    x: Annotated[str, typer.Option(help="queries, cost or time.")] = "queries",
    points: Annotated[int, typer.Option(help="Thinned to this many.")] = 50,
    as_json: Json = False,
) -> None:
    """The learning curve."""
    answer = call("GET", f"/v1/jobs/{ident}/metrics", params={"x": x, "points": points})
    show(answer.json(), as_json, ("x", "step", "queries", "cost", "train_loss", "val_accuracy", "val_ci95"))


@group.command("queries")
def queries(
    ident: str,
    csv: Annotated[Path | None, typer.Option(help="Write the whole ledger to this file.")] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """Every request to the provider: images, outcome, cost."""
    path = f"/v1/jobs/{ident}/queries"
    if csv is not None:
        save(call("GET", path, params={"format": "csv"}), csv, as_json)
        return
    columns = ("id", "sent_at", "purpose", "images", "outcome", "model_version", "cost")
    show(call("GET", path, params={"limit": limit, "after": after}).json(), as_json, columns)


@group.command("checkpoints")
def checkpoints(ident: str, limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
    """Programs stored on the way."""
    answer = call("GET", f"/v1/jobs/{ident}/checkpoints", params={"limit": limit, "after": after})
    columns = ("id", "step", "queries", "metrics.val_accuracy", "metrics.val_ci95", "metrics.test_accuracy")
    show(answer.json(), as_json, (*columns, "metrics.test_ci95", "created_at"))


@group.command("mapping")
def mapping(ident: str, checkpoint_id: Checkpoint = None, as_json: Json = False) -> None:
    """Which source labels speak for which target label."""
    found = call("GET", f"/v1/jobs/{ident}/mapping", params={"checkpoint_id": checkpoint_id}).json()
    show(found if as_json else {"data": found["rows"]}, as_json, ("view", "source_label", "mean", "weights"))


@group.command("picture")
def picture(
    ident: str, out: Out = Path("program.png"), checkpoint_id: Checkpoint = None, as_json: Json = False
) -> None:
    """Save the program's picture, amplified."""
    save(call("GET", f"/v1/jobs/{ident}/program.png", params={"checkpoint_id": checkpoint_id}), out, as_json)


@group.command("samples")
def samples(ident: str, limit: Limit = 8, checkpoint_id: Checkpoint = None, as_json: Json = False) -> None:
    """Test images before and after."""
    given = {"limit": limit, "checkpoint_id": checkpoint_id}
    show(call("GET", f"/v1/jobs/{ident}/samples", params=given).json(), as_json, ("n", "label", "after"))


@group.command("sample")
def sample(
    ident: str,
    n: int,
    out: Out = Path("sample.png"),
    view: Annotated[int, typer.Option(help="Which of the program's views.")] = 0,
    checkpoint_id: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Save an image as the source model is shown it."""
    given = {"view": view, "checkpoint_id": checkpoint_id}
    save(call("GET", f"/v1/jobs/{ident}/samples/{n}.png", params=given), out, as_json)


@group.command("artifact")
def artifact(
    ident: str, out: Out = Path("artifact.zip"), checkpoint_id: Checkpoint = None, as_json: Json = False
) -> None:
    """Save the finished program as a zip without pickle."""
    save(call("GET", f"/v1/jobs/{ident}/artifact", params={"checkpoint_id": checkpoint_id}), out, as_json)


@group.command("evaluate")
def evaluate(
    ident: str,
    mapping: Annotated[str, typer.Option(help="best, linear, rbf, random, frequency or bayesian.")] = "best",
    fused: Annotated[bool, typer.Option("--fused", help="Read compact pixel features as well.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Look at the test images too.")] = False,
    labels_per_class: Annotated[
        int | None, typer.Option(help="Source labels for each class (random, frequency).")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Highest scores counted (bayesian).")] = None,
    checkpoint_id: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Fit another head on answers paid already, for free; it can be published by its checkpoint."""
    numbers = {"labels_per_class": labels_per_class, "top": top}
    head = {"type": mapping} | {name: value for name, value in numbers.items() if value is not None}
    body = {"mapping": head, "fused": fused, "test": test, "checkpoint_id": checkpoint_id}
    show(call("POST", f"/v1/jobs/{ident}/evaluations", json=body).json(), as_json, _EVALUATION)


@group.command("evaluations")
def evaluations(ident: str, limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
    """The heads that `evaluate` made, newest first."""
    given = {"limit": limit, "after": after}
    show(call("GET", f"/v1/jobs/{ident}/evaluations", params=given).json(), as_json, _EVALUATION)


@group.command("evaluation")
def evaluation(ident: str, evaluation_id: str, as_json: Json = False) -> None:
    """One of them."""
    show(call("GET", f"/v1/jobs/{ident}/evaluations/{evaluation_id}").json(), as_json, _EVALUATION)


@group.command("import")
def import_artifact(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    connection_id: Annotated[
        str | None, typer.Option("--connection", help="Default: the artifact's.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the artifact's.")] = None,
    as_json: Json = False,
) -> None:
    """Take in an artifact as a finished job, to publish from."""
    answer = call(
        "POST",
        "/v1/artifacts/import",
        params={"connection_id": connection_id, "name": name},
        content=file.read_bytes(),
        headers={"content-type": "application/zip"},
    )
    show(answer.json(), as_json, _STATE)
