"""`reprog doctor`: is this installation fit to run? Reads and reports, and changes nothing. It spends only
where it is told to test the connections."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from app import telemetry
from app.errors import ReprogError
from app.jobs.spec import amount
from app.settings import ClientSettings, Settings
from app.storage import database
from app.storage.connections import ConnectionRecord
from app.wiring import House

LEAST_FREE = 2**30  # bytes


def report(settings: Settings, *, ask: bool = False) -> bool:
    """Print every setting with its source and every check. `ask`: test every connection, one billable query
    each. Returns whether all is well."""
    console = Console()
    table = Table("setting", "value", "from")
    for of in (settings, ClientSettings()):
        for name in type(of).model_fields:
            table.add_row(f"REPROG_{name.upper()}", escape(_shown(getattr(of, name))), _source(of, name))
    console.print(table)
    well = True
    for check, ok, words in _checks(settings):
        _line(console, check, ok, words)
        well &= ok
    if well and _there(settings):
        for check, ok, words in _connections(settings, ask):
            _line(console, check, ok, words)
            well &= ok
    return well


def _shown(value: object) -> str:
    """A setting without what is secret in it: the password of a database's address too."""
    if isinstance(value, SecretStr):
        return "(set)"
    return "" if value is None else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", str(value))


def _source(settings: BaseSettings, name: str) -> str:
    variable, folder = f"REPROG_{name.upper()}", settings.model_config.get("secrets_dir")
    if variable in os.environ:
        return "environment"
    if folder and any(path.name.upper() == variable for path in Path(str(folder)).iterdir()):
        return str(folder)
    return "default" if getattr(settings, name) == type(settings).model_fields[name].default else "option"


def _line(console: Console, check: str, ok: bool, words: str) -> None:
    console.print(f"{'[green]ok[/green]  ' if ok else '[red]ILL[/red] '} {escape(check)}: {escape(words)}")


def _there(settings: Settings) -> bool:
    file = make_url(settings.database()).database or ""
    return not settings.database().startswith("sqlite") or Path(file).exists()


def _connections(settings: Settings, ask: bool) -> Iterator[tuple[str, bool, str]]:
    """One line for each connection: what its model answered, or what asking would cost."""
    house = House(settings)
    try:
        found, last = house.connections.list(limit=100), None
        while found:
            for connection in found:
                where = f"connection {connection.name} ({connection.provider}, {connection.id})"
                ok, words = _tested(house, connection) if ask else (True, _price(connection))
                yield where, ok, words
                last = connection.id
            found = house.connections.list(last, limit=100)
    finally:
        house.close()


def _price(connection: ConnectionRecord) -> str:
    price = connection.price
    cost = f"{amount(price.micros)} {price.currency}"
    return f"not asked; `reprog doctor --connections` sends one query for {cost}"


def _tested(house: House, connection: ConnectionRecord) -> tuple[bool, str]:
    try:
        found = asyncio.run(house.probe(connection.id))
    except ReprogError as error:
        return False, f"{error.detail} {error.hint or ''}".strip()
    skew = found["clock_skew_seconds"]
    words = [
        f"{len(found['labels'])} labels",
        f"{found['latency_ms']:.0f} ms",
        f"version {found['model_version'] or 'not told'}",
        f"scores {found['score_kind']}, measured {found['score_kind_measured']}",
        "clocks agree" if not skew else f"its clock is {abs(skew)} s {'ahead' if skew > 0 else 'behind'}",
        f"cost {amount(found['cost_micros'])} {connection.price.currency}",
    ]
    return True, ", ".join(words)


def _checks(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    if not settings.otel:
        yield "traces", True, "off (REPROG_OTEL)"
    elif telemetry.installed():
        yield "traces", True, "OpenTelemetry; OTEL_EXPORTER_OTLP_ENDPOINT says where to"
    else:
        yield "traces", False, "REPROG_OTEL is on, and the extra is missing: pip install 'reprog[otel]'"
    folder = settings.data_dir
    if folder.is_dir() and os.access(folder, os.W_OK):
        free = shutil.disk_usage(folder).free
        yield "disk", free >= LEAST_FREE, f"{free / 2**30:.1f} GiB free in {folder}"
    elif folder.exists():
        yield "disk", False, f"{folder} is not writable: chown -R {os.getuid()}:{os.getgid()} {folder}"
    else:
        yield "disk", os.access(folder.parent, os.W_OK), f"{folder} will be made at the first start"
    loopback = settings.host in ("127.0.0.1", "::1", "localhost")
    yield (
        "keys",
        loopback or settings.auth == "keys",
        f"auth is {settings.auth}, listening on {settings.host}",
    )
    if not _there(settings):
        yield "database", True, f"{make_url(settings.database()).database} will be made at the first start"
        return
    try:
        behind = database.behind(settings.database())
    except (SQLAlchemyError, ReprogError) as error:
        yield "database", False, f"cannot be reached: {error}"
    else:
        yield "database", True, "reachable"
        yield "schema", not behind, "run `reprog db upgrade`" if behind else "of this release"
