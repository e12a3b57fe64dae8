"""`reprog connections` and `reprog keys`: who is asked, and who may ask."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.remote.client import Body, Change, Json, Repeat, call, money, patch, read_body, resource, show

_CONNECTION = ("id", "name", "provider", "base_url", "price.per_1000", "spent.amount")
_KEY = ("id", "name", "scopes", "last4", "last_used_at", "revoked_at")

connections = resource("connections", _CONNECTION)
keys = resource("keys", _KEY)


@connections.command("create")
def connection_create(file: Body, key: Repeat = None, as_json: Json = False) -> None:
    """Create one from a file."""
    answer = call("POST", "/v1/connections", key=key, json=read_body(file))
    show(answer.json(), as_json, _CONNECTION)


@connections.command("update")
def connection_update(
    ident: str,
    file: Change = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    price: Annotated[str | None, typer.Option(help="Of 1,000 queries: '1.20' or '1.20 EUR'.")] = None,
    budget: Annotated[str | None, typer.Option(help="Cap of the account: '50' or '50 EUR'.")] = None,
    as_json: Json = False,
) -> None:
    """Another name, key, price, limits or cap. A new secret comes in a file, never on the command line."""
    given: dict[str, Any] = {"name": name}
    if price:
        found = money(price)
        given["price"] = {"per_1000": found["amount"], "currency": found["currency"]}
    if budget:
        given["budget"] = money(budget)
    answer = call("PATCH", f"/v1/connections/{ident}", json=patch(file, **given))
    show(answer.json(), as_json, _CONNECTION)


@connections.command("test")
def connection_test(ident: str, as_json: Json = False) -> None:
    """Send one billable query: labels, latency, model version."""
    columns = ("ok", "labels", "latency_ms", "model_version", "score_kind")
    show(call("POST", f"/v1/connections/{ident}/test").json(), as_json, columns)


@connections.command("labels")
def connection_labels(ident: str, as_json: Json = False) -> None:
    """The source labels known so far."""
    found = call("GET", f"/v1/connections/{ident}/labels").json()
    if as_json:
        show(found, True, ())
        return
    if not found["labels"]:
        typer.echo(f"None yet; one query brings them: reprog connections test {ident}", err=True)
    for label in found["labels"]:
        typer.echo(label)


@connections.command("providers")
def providers(as_json: Json = False) -> None:
    """Providers, what their models are named by, and their usual price."""
    columns = ("name", "defaults.price.per_1000", "defaults.price.currency", "defaults.terms")
    show(call("GET", "/v1/providers").json(), as_json, columns)


@keys.command("create")
def key_create(
    file: Change = None,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write, spend, predict or admin; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A new key. It is shown this once."""
    answer = call("POST", "/v1/keys", json=patch(file, name=name, scopes=scope or None))
    show(answer.json(), as_json, ("id", "name", "scopes", "key"))
