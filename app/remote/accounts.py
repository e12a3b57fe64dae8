"""`reprog connections` and `reprog keys`: who is asked, and who may ask."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.remote.client import Body, Change, Json, Repeat, call, money, patch, read_body, resource, show

_CONNECTION = ("id", "name", "provider", "base_url", "price", "spent")
_KEY = ("id", "name", "scopes", "last4", "limits.budget", "last_used_at", "revoked_at")

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
def connection_test(
    ident: str,
    probes: Annotated[
        bool,
        typer.Option("--probes", help="Three or four queries more: does it resize or re-compress images?"),
    ] = False,
    repeats: Annotated[int, typer.Option(help="So many queries more: do answers vary?")] = 0,
    as_json: Json = False,
) -> None:
    """Send one billable query: labels, kind of scores, latency, model version, clock skew."""
    columns = (
        "ok", "labels", "latency_ms", "model_version", "score_kind", "score_kind_measured", "truncated",
        "decimals", "clock_skew_seconds", "cost",
    )  # fmt: skip
    columns += ("seems_to_resize", "seems_to_recompress") if probes else ()
    columns += ("repeats.spread",) if repeats else ()
    body = {"probes": probes, "repeats": repeats}
    show(call("POST", f"/v1/connections/{ident}/test", json=body).json(), as_json, columns)


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
    columns = ("name", "defaults.price", "defaults.terms")
    show(call("GET", "/v1/providers").json(), as_json, columns)


Rate = Annotated[float | None, typer.Option("--requests-per-second", help="Its rate cap.")]
Cap = Annotated[str | None, typer.Option("--budget", help="Its money cap: '5.00' or '5.00 EUR'.")]


@keys.command("create")
def key_create(
    file: Change = None,
    name: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write, spend, predict or admin; may be repeated.")
    ] = None,
    rate: Rate = None,
    budget: Cap = None,
    as_json: Json = False,
) -> None:
    """A new key. It is shown this once."""
    body = patch(file, name=name, scopes=scope or None, limits=_caps(rate, budget))
    show(call("POST", "/v1/keys", json=body).json(), as_json, ("id", "name", "scopes", "key"))


@keys.command("update")
def key_update(
    ident: str,
    file: Change = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    rate: Rate = None,
    budget: Cap = None,
    as_json: Json = False,
) -> None:
    """Another name, another cap."""
    body = patch(file, name=name, limits=_caps(rate, budget))
    show(call("PATCH", f"/v1/keys/{ident}", json=body).json(), as_json, _KEY)


def _caps(rate: float | None, budget: str | None) -> dict[str, Any] | None:
    given = {"requests_per_second": rate, "budget": money(budget) if budget else None}
    return {name: value for name, value in given.items() if value is not None} or None
