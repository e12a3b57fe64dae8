"""`reprog audit` and `reprog webhooks`: what was done, and who is told."""

from __future__ import annotations

from typing import Annotated

import typer

from app.remote.client import After, Json, Limit, call, patch, resource, show

audit = typer.Typer(no_args_is_help=True, help="Who changed and spent what.")

_LINE = ("id", "at", "key_id", "action", "resource", "status", "cost")


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


_HOOK = ("id", "name", "url", "events", "enabled")
_DELIVERY = ("id", "type", "status", "attempts", "http_status", "error", "created_at")

webhooks = resource("webhooks", _HOOK)

Events = Annotated[
    list[str] | None, typer.Option("--event", help="job.succeeded, job.* ...; may be repeated.")
]


@webhooks.command("create")
def webhook_create(url: str, name: str = "", event: Events = None, as_json: Json = False) -> None:
    """Tell URL what happens to jobs. The secret is shown this once."""
    body = {"url": url, "name": name} | ({"events": event} if event else {})
    show(call("POST", "/v1/webhooks", json=body).json(), as_json, ("id", "url", "events", "secret"))


@webhooks.command("update")
def webhook_update(
    ident: str,
    url: str | None = None,
    name: str | None = None,
    event: Events = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Send, or let it wait.")] = None,
    as_json: Json = False,
) -> None:
    """Another address, name or filter; on or off."""
    body = patch(None, url=url, name=name, events=event or None, enabled=enabled)
    show(call("PATCH", f"/v1/webhooks/{ident}", json=body).json(), as_json, _HOOK)


@webhooks.command("rotate")
def webhook_rotate(
    ident: str,
    keep_hours: Annotated[float, typer.Option(help="So long the old secret signs too.")] = 24.0,
    as_json: Json = False,
) -> None:
    """A new secret, shown this once; for a while messages carry the signatures of both."""
    answer = call("POST", f"/v1/webhooks/{ident}/rotate", json={"keep_hours": keep_hours})
    show(answer.json(), as_json, ("id", "url", "old_secret_until", "secret"))


@webhooks.command("test")
def webhook_test(ident: str, as_json: Json = False) -> None:
    """Send a test message and say what came of it."""
    show(call("POST", f"/v1/webhooks/{ident}/test").json(), as_json, _DELIVERY)


@webhooks.command("deliveries")
def webhook_deliveries(
    ident: str,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    as_json: Json = False,
) -> None:
    """What was sent, newest first."""
    asked = {"limit": limit, "after": after, "status": status}
    show(call("GET", f"/v1/webhooks/{ident}/deliveries", params=asked).json(), as_json, _DELIVERY)


@webhooks.command("redeliver")
def webhook_redeliver(ident: str, delivery: str, as_json: Json = False) -> None:
    """Send a delivery once more, under its old id."""
    answer = call("POST", f"/v1/webhooks/{ident}/deliveries/{delivery}/redeliver")
    show(answer.json(), as_json, _DELIVERY)
