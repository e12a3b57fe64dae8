"""`reprog audit` and `reprog webhooks`: what was done, and who is told."""

from __future__ import annotations

from typing import Annotated

import typer

from app.remote.client import After, Json, Limit, call, show

audit = typer.Typer(no_args_is_help=True, help="Who changed and spent what.")

_LINE = ("id", "at", "key_id", "action", "resource", "status", "cost.amount", "cost.currency")


@audit.command("list")
def audit_list(
    limit: Limit = 20,
    after: After = None,
    key_id: Annotated[str | None, typer.Option("--key", help="Only this key's calls.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action: create_job, predict, ...")] = None,
    since: Annotated[str | None, typer.Option(help="RFC 3339; from this time on.")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339; before this time.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="All lines as CSV.")] = False,
    as_json: Json = False,
) -> None:
    """Calls that are no reads, newest first."""
    asked = {"key_id": key_id, "action": action, "since": since, "until": until}
    if csv:
        typer.echo(call("GET", "/v1/audit", params=asked | {"format": "csv"}).text, nl=False)
        return
    found = call("GET", "/v1/audit", params=asked | {"limit": limit, "after": after})
    show(found.json(), as_json, _LINE)
