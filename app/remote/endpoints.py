"""`reprog endpoints`: programs that answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.remote.client import (
    After,
    Body,
    Change,
    Json,
    Limit,
    Repeat,
    call,
    money,
    patch,
    read_body,
    resource,
    show,
)

_COLUMNS = ("name", "version", "status", "job_id", "cost.billable_queries", "cost.spent")

group = resource("endpoints", _COLUMNS)


@group.command("create")
def create(file: Body, key: Repeat = None, as_json: Json = False) -> None:
    """Publish a job's program, from a file with `name` and `job_id`."""
    show(call("POST", "/v1/endpoints", key=key, json=read_body(file)).json(), as_json, _COLUMNS)


@group.command("update")
def update(
    name: str,
    file: Change = None,
    version: Annotated[int | None, typer.Option(help="Serve this version: forward or back.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Answer, or refuse.")] = None,
    budget: Annotated[str | None, typer.Option(help="Spend cap: '5.00' or '5.00 EUR'.")] = None,
    canary: Annotated[
        int | None,
        typer.Option(help="Ask so many fixed queries each hour, and say when answers move; 0: stop."),
    ] = None,
    canary_budget: Annotated[str | None, typer.Option(help="Most that the canary may cost: '1.00'.")] = None,
    as_json: Json = False,
) -> None:
    """Another version, on or off, a spend cap, a canary."""
    limits = {"budget": money(budget)} if budget else None
    cap = {"budget": money(canary_budget)} if canary_budget else {}
    watch = None if canary is None else {"queries": canary, **cap}
    body = patch(file, version=version, enabled=enabled, limits=limits, canary=watch)
    if canary == 0:
        body["canary"] = None
    show(call("PATCH", f"/v1/endpoints/{name}", json=body).json(), as_json, _COLUMNS)


@group.command("versions")
def versions(name: str, limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
    """What was published under the name, newest first."""
    answer = call("GET", f"/v1/endpoints/{name}/versions", params={"limit": limit, "after": after})
    show(answer.json(), as_json, ("version", "job_id", "checkpoint_id", "created_at"))


@group.command("predict")
def predict(
    name: str,
    files: Annotated[list[Path] | None, typer.Argument(help="Images.")] = None,
    body: Annotated[
        Path | None, typer.Option("-f", "--file", allow_dash=True, help="A JSON body instead of images.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Classify images, or what a JSON body holds; each costs the endpoint's queries per prediction."""
    if not files and body is None:
        raise typer.BadParameter("Give image files, or a body with -f.")
    path = f"/v1/endpoints/{name}/predict"
    if body is not None:
        answer = call("POST", path, json=read_body(body))
        found: list[Any] = answer.json()
        lists: list[Any] = found if found and isinstance(found[0], list) else [found]
        for n, predictions in enumerate(lists):
            _told(f"{body}:{n}", predictions, answer.headers if n == 0 else {}, as_json)
    for file in files or []:
        answer = call("POST", path, content=file.read_bytes())
        _told(str(file), answer.json(), answer.headers, as_json)


def _told(source: str, predictions: list[dict[str, Any]], headers: Any, as_json: bool) -> None:  # noqa: ANN401
    cost = headers.get("x-cost", "")
    if as_json:
        queries = int(headers.get("x-remote-queries", 0))
        typer.echo(json.dumps({"file": source, "predictions": predictions, "cost": cost, "queries": queries}))
    else:
        top = predictions[0]
        typer.echo(f"{source}\t{top['label']}\t{top['score']:.4f}\t{cost}")
