"""One request to the service, and what is printed of its answer."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast
from uuid import uuid4

import httpx
import typer
import yaml
from rich.console import Console
from rich.table import Table

from app.settings import ClientSettings, environment

EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_JOB_FAILED, EXIT_JOB_PAUSED = 3, 4, 5, 6

Json = Annotated[bool, typer.Option("--json", help="Print the service's JSON answer.")]
Body = Annotated[
    Path, typer.Option("-f", "--file", exists=True, allow_dash=True, help="YAML or JSON; - reads stdin.")
]
Change = Annotated[
    Path | None,
    typer.Option(
        "-f", "--file", exists=True, allow_dash=True, help="The change as YAML or JSON; - reads stdin."
    ),
]
Limit = Annotated[int, typer.Option(help="Rows of one answer, 1 to 100.")]
After = Annotated[str | None, typer.Option(help="Go on after this row.")]
Repeat = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="The same key and file give the same answer, made once."),
]


def client() -> httpx.Client:
    """The service at REPROG_URL (default http://127.0.0.1:8000) with the key in REPROG_API_KEY."""
    settings = ClientSettings()
    key = settings.api_key
    return httpx.Client(
        base_url=settings.url,
        headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else {},
        timeout=httpx.Timeout(120, connect=5),
        trust_env=False,
    )


def call(method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:  # noqa: ANN401
    """One request. A refusal ends the command with its sentence and hint on stderr."""
    headers: dict[str, str] = options.pop("headers", {})
    if method == "POST":
        key = key or uuid4().hex
        headers = {"Idempotency-Key": key, **headers}
    options["params"] = {k: v for k, v in (options.get("params") or {}).items() if v is not None}
    with _reachable(key), client() as connection:
        response = connection.request(method, path, headers=headers, **options)
    if not response.is_success:
        refuse(response)
    return response


@contextmanager
def _reachable(key: str | None) -> Generator[None]:
    try:
        yield
    except (httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError) as error:  # it was sent
        typer.echo(f"reprog: the service took the request and did not answer: {error}", err=True)
        if key is not None:
            typer.echo(
                "        It may still be done. To hear its answer, and have it done only once:", err=True
            )
            typer.echo(f"        run the command again with --idempotency-key {key}", err=True)
        raise typer.Exit(EXIT_UNREACHABLE) from error
    except httpx.TransportError as error:
        typer.echo(f"reprog: no answer from the service: {error}", err=True)
        typer.echo("        Start it with `reprog serve`, or set REPROG_URL.", err=True)
        raise typer.Exit(EXIT_UNREACHABLE) from error


def refuse(response: httpx.Response) -> NoReturn:
    """Say why, and end with the exit code for it."""
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
    """JSON as it came, or a table of the named members (dots reach inside); money with its currency."""
    if as_json:
        typer.echo(json.dumps(document, indent=2))
        return
    rows = document.get("data", [document])
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
    if isinstance(value, dict) and set(cast("dict[str, object]", value)) == {"amount", "currency"}:
        return "{amount} {currency}".format(**cast("dict[str, str]", value))
    if isinstance(value, dict) and set(cast("dict[str, object]", value)) == {"per_1000", "currency"}:
        return "{per_1000} {currency} per 1,000".format(**cast("dict[str, str]", value))
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def done(what: dict[str, Any], as_json: bool, words: str) -> None:
    """The answer to an operation that has none of its own."""
    typer.echo(json.dumps(what) if as_json else words)


def save(response: httpx.Response, out: Path, as_json: bool) -> None:
    """Write an answer's bytes to a file, and say where."""
    out.write_bytes(response.content)
    done({"file": str(out), "bytes": len(response.content)}, as_json, str(out))


_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def _from_environment(match: re.Match[str]) -> str:
    value = environment(match[1])
    if value is None:
        raise typer.BadParameter(f"{match[0]} is not set in the environment.")
    return value


def read_body(file: Path) -> dict[str, Any]:
    """A YAML or JSON body; `${NAME}` is taken from the environment. Raises BadParameter."""
    text = sys.stdin.read() if str(file) == "-" else file.read_text()
    try:
        body = yaml.safe_load(_VARIABLE.sub(_from_environment, text))
    except yaml.YAMLError as error:
        raise typer.BadParameter(f"{file} is neither YAML nor JSON: {error}") from error
    if not isinstance(body, dict):
        raise typer.BadParameter(f"{file} does not hold a mapping.")
    return body


def money(given: str) -> dict[str, str]:
    """'5.00' or '5.00 EUR' as a body says it."""
    amount, _, currency = given.strip().partition(" ")
    return {"amount": amount, "currency": currency.strip() or "USD"}


def patch(file: Path | None, **given: object) -> dict[str, Any]:
    """The body of a change: from a file, from options, or both. Raises BadParameter when nothing is given."""
    body = ({} if file is None else read_body(file)) | {k: v for k, v in given.items() if v is not None}
    if not body:
        raise typer.BadParameter("Nothing to change was given; see --help.")
    return body


def resource(plural: str, columns: tuple[str, ...], *, filtered: bool = False) -> typer.Typer:
    """list, get and delete for one resource of the REST surface; a `filtered` one makes its own list."""
    group = typer.Typer(no_args_is_help=True, help=f"{plural.capitalize()} of the service.")

    def list_(limit: Limit = 20, after: After = None, as_json: Json = False) -> None:
        """List them, newest first."""
        show(call("GET", f"/v1/{plural}", params={"limit": limit, "after": after}).json(), as_json, columns)

    if not filtered:
        group.command("list")(list_)

    @group.command("get")
    def get(ident: str, as_json: Json = False) -> None:
        """Show one."""
        show(call("GET", f"/v1/{plural}/{ident}").json(), as_json, columns)

    @group.command("delete")
    def delete(ident: str, as_json: Json = False) -> None:
        """Delete one."""
        call("DELETE", f"/v1/{plural}/{ident}")
        done({"id": ident, "deleted": True}, as_json, f"{ident} is deleted.")

    return group
