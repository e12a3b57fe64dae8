"""`reprog service`: what it can do, how it is, what was spent."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.remote.client import Json, call, show

group = typer.Typer(no_args_is_help=True, help="The service itself: state, methods, usage.")


@group.command("status")
def status(as_json: Json = False) -> None:
    """Does it answer, is it ready, and which release is it?"""
    call("GET", "/livez")
    call("GET", "/readyz")
    show(call("GET", "/v1/version").json() | {"ready": True}, as_json, ("name", "version", "api", "ready"))


@group.command("methods")
def methods(as_json: Json = False) -> None:
    """Methods with their options and defaults."""
    found = call("GET", "/v1/methods").json()
    if as_json:
        show(found, True, ())
        return
    rows = [
        {"type": one["type"], "option": name, "default": json.dumps(shape.get("default")), **_about(shape)}
        for one in found["data"]
        for name, shape in one["schema"].get("properties", {}).items()
    ]
    show({"data": rows}, False, ("type", "option", "default", "about"))


def _about(shape: dict[str, Any]) -> dict[str, str]:
    return {"about": shape.get("description", "")}


@group.command("usage")
def usage(
    group_by: Annotated[str, typer.Option(help="job, endpoint, connection, day or key.")] = "job",
    since: Annotated[str | None, typer.Option(help="RFC 3339; from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339; before this time.")] = None,
    as_json: Json = False,
) -> None:
    """Requests, queries and money."""
    found = call("GET", "/v1/usage", params={"group_by": group_by, "since": since, "until": until})
    columns = ("group", "requests", "billable_queries", "unknown_queries", "cost")
    show(found.json(), as_json, columns)


@group.command("metrics")
def metrics(as_json: Json = False) -> None:
    """Prometheus text; with --json its lines by name."""
    text = call("GET", "/metrics").text
    if not as_json:
        typer.echo(text, nl=False)
        return
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    typer.echo(json.dumps({name: float(value) for name, _, value in lines}, indent=2))
