"""The REST surface from a shell: `reprog connections|datasets|jobs|endpoints|keys ...`.

Exit codes (stable): 0 done, 2 wrong usage, 3 refused by the service (4xx), 4 the service cannot be
reached or failed (5xx), 5 a watched job failed or was cancelled, 6 a watched job is paused.
Ctrl-C on a watch detaches; the job goes on.
"""

from __future__ import annotations

import json
import mimetypes
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import uuid4

import httpx
import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.settings import ClientSettings, environment

EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_JOB_FAILED, EXIT_JOB_PAUSED = 3, 4, 5, 6
OVER = {"succeeded", "failed", "cancelled"}

Json = Annotated[bool, typer.Option("--json", help="Print the service's JSON answer.")]


def _client() -> httpx.Client:
    """The service at REPROG_URL (default http://127.0.0.1:8000) with the key in REPROG_API_KEY."""
    settings = ClientSettings()
    key = settings.api_key
    return httpx.Client(
        base_url=settings.url,
        headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else {},
        timeout=httpx.Timeout(120, connect=5),
        trust_env=False,
    )


def call(method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 (httpx has them)
    """One request. A refusal ends the command with its sentence and hint on stderr."""
    headers = options.pop("headers", {})
    if method == "POST":
        headers.setdefault("Idempotency-Key", uuid4().hex)
    try:
        with _client() as client:
            response = client.request(method, path, headers=headers, **options)
    except httpx.TransportError as error:
        typer.echo(f"reprog: no answer from the service: {error}", err=True)
        typer.echo("        Start it with `reprog serve`, or set REPROG_URL.", err=True)
        raise typer.Exit(EXIT_UNREACHABLE) from error
    if response.is_success:
        return response
    try:
        problem: dict[str, Any] = response.json()
    except json.JSONDecodeError:
        problem = {"detail": response.text[:200]}
    where = f" ({problem['param']})" if problem.get("param") else ""
    typer.echo(
        f"reprog: {problem.get('detail')}{where} [{problem.get('code', response.status_code)}]", err=True
    )
    if problem.get("hint"):
        typer.echo(f"        {problem['hint']}", err=True)
    raise typer.Exit(EXIT_UNREACHABLE if response.status_code >= 500 else EXIT_REFUSED)


def show(document: dict[str, Any], as_json: bool, columns: tuple[str, ...]) -> None:
    """JSON as it came, or a table of the named members (dots reach inside)."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    rows = document["data"] if document.get("object") == "list" else [document]
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_member(row, column) for column in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if document.get("has_more"):
        typer.echo(f"more: --after {document['next_cursor']}")


def _member(row: dict[str, Any], path: str) -> str:
    value: object = row
    for part in path.split("."):
        value = cast("dict[str, object]", value).get(part) if isinstance(value, dict) else None
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def _from_environment(match: re.Match[str]) -> str:
    value = environment(match[1])
    if value is None:
        raise typer.BadParameter(f"{match[0]} is not set in the environment.")
    return value


def read_body(file: Path) -> dict[str, Any]:
    """A YAML or JSON body; `${NAME}` is taken from the environment."""
    text = _VARIABLE.sub(_from_environment, file.read_text())
    body = yaml.safe_load(text)
    if not isinstance(body, dict):
        raise typer.BadParameter(f"{file} does not hold a mapping.")
    return body


def resource(plural: str, columns: tuple[str, ...], *, create_from_file: bool = True) -> typer.Typer:
    """list, get, delete and (from a YAML or JSON file) create for one resource of the REST surface."""
    group = typer.Typer(no_args_is_help=True, help=f"{plural.capitalize()} of the service.")

    @group.command("list")
    def list_(limit: int = 20, after: str | None = None, as_json: Json = False) -> None:
        """List them, newest first."""
        query = {"limit": limit, **({"after": after} if after else {})}
        show(call("GET", f"/v1/{plural}", params=query).json(), as_json, columns)

    @group.command("get")
    def get(ident: str, as_json: Json = False) -> None:
        """Show one."""
        show(call("GET", f"/v1/{plural}/{ident}").json(), as_json, columns)

    @group.command("delete")
    def delete(ident: str) -> None:
        """Delete one."""
        call("DELETE", f"/v1/{plural}/{ident}")

    if create_from_file:

        @group.command("create")
        def create(
            file: Annotated[Path, typer.Option("-f", "--file", exists=True, help="YAML or JSON body.")],
            as_json: Json = False,
        ) -> None:
            """Create one from a file."""
            show(call("POST", f"/v1/{plural}", json=read_body(file)).json(), as_json, columns)

    return group


connections = resource("connections", ("id", "name", "provider", "base_url", "price.per_1000"))
datasets = resource("datasets", ("id", "name", "classes", "counts"), create_from_file=False)
jobs = resource(
    "jobs", ("id", "name", "status", "status_reason", "cost.spent.amount"), create_from_file=False
)
endpoints = resource("endpoints", ("name", "job_id", "version"))
keys = resource("keys", ("id", "name", "scopes", "last4", "key"))
GROUPS = {
    "connections": connections,
    "datasets": datasets,
    "jobs": jobs,
    "endpoints": endpoints,
    "keys": keys,
}


@connections.command("test")
def connection_test(ident: str, as_json: Json = False) -> None:
    """Send one billable query: labels, latency, model version."""
    show(
        call("POST", f"/v1/connections/{ident}/test").json(),
        as_json,
        ("ok", "labels", "latency_ms", "model_version", "score_kind"),
    )


@datasets.command("upload")
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    name: str | None = None,
    seed: int = 0,
    format_: Annotated[str, typer.Option("--format")] = "auto",
    as_json: Json = False,
) -> None:
    """Upload a zip, tar or npz."""
    kind = "application/x-npz" if file.suffix == ".npz" else mimetypes.guess_type(file.name)[0]
    with file.open("rb") as stream:
        answer = call(
            "POST",
            "/v1/datasets",
            params={"name": name or file.stem, "format": format_, "seed": seed},
            content=stream,
            headers={"content-type": kind or "application/octet-stream"},
        )
    show(answer.json(), as_json, ("id", "name", "classes", "counts"))


@jobs.command("quote")
def quote(file: Annotated[Path, typer.Option("-f", "--file", exists=True)], as_json: Json = False) -> None:
    """What the job in FILE would ask and cost."""
    columns = ("queries.planned", "cost.planned.amount", "cost.limit.amount", "wall_time_seconds")
    show(call("POST", "/v1/jobs/quote", json=read_body(file)).json(), as_json, columns)


@jobs.command("create")
def job_create(
    file: Annotated[Path, typer.Option("-f", "--file", exists=True, help="YAML or JSON job.")],
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it to the end.")] = False,
    as_json: Json = False,
) -> None:
    """Create a job from a file."""
    job = call("POST", "/v1/jobs", json=read_body(file)).json()
    if watch_it:
        watch(job["id"], as_json)
    show(job, as_json, ("id", "name", "status"))


@jobs.command("watch")
def watch(ident: str, as_json: Json = False) -> None:
    """Follow a job: a bar, or JSON lines with a closing line. Ctrl-C detaches, the job goes on."""
    try:
        job = _follow_lines(ident) if as_json or not sys.stdout.isatty() else _follow_bar(ident)
    except KeyboardInterrupt:
        typer.echo(f"detached; the job goes on: reprog jobs watch {ident}", err=True)
        raise typer.Exit(0) from None
    if job["status"] == "succeeded":
        raise typer.Exit(0)
    raise typer.Exit(EXIT_JOB_PAUSED if job["status"] == "paused" else EXIT_JOB_FAILED)


def _follow_lines(ident: str) -> dict[str, Any]:
    last = None
    while True:
        job = call("GET", f"/v1/jobs/{ident}").json()
        line = {k: job[k] for k in ("id", "status", "status_reason", "progress", "cost")}
        if line != last:
            typer.echo(json.dumps(line))
            last = line
        if job["status"] in OVER or job["status"] == "paused":
            typer.echo(json.dumps({"closing": True, "status": job["status"], "metrics": job["metrics"]}))
            return job
        time.sleep(1)


def _follow_bar(ident: str) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn()) as bar:
        task = bar.add_task(ident, total=1.0, note="")
        while True:
            job = call("GET", f"/v1/jobs/{ident}").json()
            bar.update(
                task,
                completed=job["progress"]["fraction"],
                description=job["status"],
                note=progress_note(job),
            )
            if job["status"] in OVER or job["status"] == "paused":
                return job
            time.sleep(0.5)


def progress_note(job: dict[str, Any]) -> str:
    """One line of a watch: queries, money, accuracy, time left."""
    progress, cost, best = job["progress"], job["cost"], job["metrics"].get("best") or {}
    parts = [
        f"{progress.get('phase', '')}",
        f"{cost['billable_queries']} queries",
        f"{cost['spent']['amount']} {cost['spent']['currency']}",
    ]
    if best.get("val_accuracy") is not None:
        parts.append(f"validation accuracy {best['val_accuracy']:.3f}")
    if progress.get("eta"):
        parts.append(f"about {progress['eta']['p50']:.0f} s left")
    return " · ".join(part for part in parts if part)


@jobs.command("events")
def events(ident: str, after: int = 0) -> None:
    """The events of a job as JSON lines."""
    for event in call("GET", f"/v1/jobs/{ident}/events", params={"after": after}).json()["data"]:
        typer.echo(json.dumps(event))


@jobs.command("artifact")
def artifact(ident: str, out: Annotated[Path, typer.Option("-o", "--out")] = Path("artifact.zip")) -> None:
    """Save the finished program as a zip without pickle."""
    out.write_bytes(call("GET", f"/v1/jobs/{ident}/artifact").content)
    typer.echo(str(out))


def _act(action: str) -> None:
    @jobs.command(action, help=f"{action.capitalize()} a job.")
    def act(ident: str, as_json: Json = False) -> None:
        show(call("POST", f"/v1/jobs/{ident}/{action}").json(), as_json, ("id", "status", "status_reason"))


for _action in ("pause", "resume", "cancel", "clone"):
    _act(_action)


@endpoints.command("predict")
def predict(name: str, files: list[Path], as_json: Json = False) -> None:
    """Classify image files; each costs the endpoint's queries per prediction."""
    for file in files:
        answer = call("POST", f"/v1/endpoints/{name}/predict", content=file.read_bytes())
        if as_json:
            typer.echo(json.dumps({"file": str(file), "predictions": answer.json()}))
        else:
            top = answer.json()[0]
            typer.echo(
                f"{file}\t{top['label']}\t{top['score']:.4f}\t{answer.headers.get('x-cost-usd', '')} USD"
            )
