"""`reprog`: processes and set-up here, the REST surface from a shell in `app.remote`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from app import __version__, remote
from app.errors import ReprogError

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, pretty_exceptions_enable=False)
db = typer.Typer(no_args_is_help=True, help="The database.")
app.add_typer(db, name="db")
secrets = typer.Typer(no_args_is_help=True, help="The key that seals stored secrets.")
app.add_typer(secrets, name="secrets")
for name, group in remote.GROUPS.items():
    app.add_typer(group, name=name)

#: Exit codes, documented in docs/cli.md. 1 is left to crashes.
EXIT_REFUSED = 3


def _version(show: bool) -> None:
    if show:
        typer.echo(f"reprog {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Turn a remote prediction API into a classifier for your own task, by queries alone."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """API, dashboard and (unless REPROG_WORKER=false) a worker, in one process."""
    from app import main
    from app.settings import Settings

    changed = {k: v for k, v in {"host": host, "port": port}.items() if v is not None}
    main.serve(Settings().model_copy(update=changed))


@app.command()
def worker() -> None:
    """Run jobs of the shared database until stopped. Any number of machines may."""
    from app import worker as process
    from app.settings import Settings

    process.run(Settings())


@app.command()
def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8900,
    size: Annotated[int, typer.Option(help="224, or 128 for the small fast forms.")] = 224,
    keys: Annotated[str, typer.Option(help="Accepted keys, comma-separated; default: any sandbox-...")] = "",
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests per second; 0: none; default: the providers' own.")
    ] = None,
) -> None:
    """Real classifiers over the providers' own wire formats, with a bill and faults on request."""
    from app.sandbox.server import serve as serve_sandbox

    if size not in (128, 224):
        raise typer.BadParameter("must be 128 or 224", param_hint="--size")
    keys_accepted = tuple(key.strip() for key in keys.split(",") if key.strip())
    serve_sandbox(host=host, port=port, size=size, keys=keys_accepted, rate_limit_rps=rate_limit)


@app.command()
def demo(
    queries: Annotated[int, typer.Option(help="Most queries the demo may pay the sandbox for.")] = 12000,
) -> None:
    """The main job on real images against the bundled sandbox: no account, no server."""
    from app import demo as story

    raise typer.Exit(story.run(queries))


@app.command()
def doctor(
    connections: Annotated[
        bool, typer.Option("--connections", help="Test every connection: one billable query each.")
    ] = False,
) -> None:
    """Settings with their source, database, disk, migrations and connections; exit code 3 when one is ill."""
    from app import doctor as checks
    from app.settings import Settings

    raise typer.Exit(0 if checks.report(Settings(), ask=connections) else EXIT_REFUSED)


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the database to this release's schema."""
    from app.settings import Settings
    from app.storage.database import migrate

    settings = Settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate(settings.database())
    typer.echo("The database is at this release's schema.")


@secrets.command("new-key")
def secrets_new_key() -> None:
    """Put a new key before the old ones in the key file."""
    from app.storage.secrets import add_key

    path = _key_file()
    add_key(path)
    typer.echo(f"{path} begins with a new key; the old one stays for now.")
    typer.echo("Restart every process that uses it, then: reprog secrets rotate")


@secrets.command("rotate")
def secrets_rotate() -> None:
    """Seal every stored secret with the newest key. The service may run meanwhile."""
    from app.settings import Settings
    from app.wiring import House

    house = House(Settings())
    try:
        done = house.reseal()
    finally:
        house.close()
    typer.echo("sealed again: " + ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in done.items()))
    typer.echo("The older keys are no longer needed: drop them, and restart every process.")


@secrets.command("drop-old-keys")
def secrets_drop_old_keys() -> None:
    """Keep the newest key of the key file alone. Only after `reprog secrets rotate`."""
    from app.settings import Settings
    from app.storage.secrets import drop_old_keys
    from app.wiring import House

    path = _key_file()
    newest = path.read_text().partition(",")[0].strip()
    house = House(Settings(secret_key=SecretStr(newest)))
    try:
        house.reseal()  # refuses when anything still needs an older key
    finally:
        house.close()
    typer.echo(f"{drop_old_keys(path)} old keys are gone from {path}.")


def _key_file() -> Path:
    from app.errors import BadRequest
    from app.settings import Settings

    settings = Settings()
    if settings.secret_key is not None:
        raise BadRequest(
            "The key comes from REPROG_SECRET_KEY, not from a file.",
            code="secret_key_not_a_file",
            hint="Put a new one before it there, with a comma between; then `reprog secrets rotate`.",
        )
    return settings.secret_key_file or settings.data_dir / "secret.key"


@app.command("check-migrations", hidden=True)
def check_migrations() -> None:
    """Fail when migrations and tables differ."""
    import tempfile

    from app.storage.database import check_migrations as differences

    with tempfile.TemporaryDirectory() as folder:
        found = differences(f"sqlite:///{folder}/check.sqlite")
    for line in found:
        typer.echo(line, err=True)
    raise typer.Exit(1 if found else 0)


@app.command("openapi", hidden=True)
def openapi(
    check: Annotated[Path | None, typer.Option(help="Compare with this file instead of printing.")] = None,
) -> None:
    """Print the OpenAPI document, or fail when FILE differs from it."""
    from app.api.openapi import dump

    document = dump()
    if check is None:
        typer.echo(document, nl=False)
    elif not check.exists() or check.read_text() != document:
        typer.echo(f"{check} is out of date: run `reprog openapi > {check}`.", err=True)
        raise typer.Exit(1)


def main() -> None:
    """Entry point: deliberate errors end with a sentence and a hint, not a trace."""
    try:
        app()
    except ReprogError as error:
        typer.echo(f"reprog: {error.detail}" + (f"\n        {error.hint}" if error.hint else ""), err=True)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
