"""`reprog doctor`: is this installation fit to run? Reads and reports; spends and changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.errors import ReprogError
from app.settings import Settings
from app.storage import database

LEAST_FREE = 2**30  # bytes


def report(settings: Settings) -> bool:
    """Print every setting with its source and every check. Returns whether all is well."""
    console = Console()
    table = Table("setting", "value", "from")
    for name in Settings.model_fields:
        value = getattr(settings, name)
        shown = "(set)" if isinstance(value, SecretStr) else str(value)
        source = f"REPROG_{name.upper()}"
        table.add_row(source, shown, "environment" if source in os.environ else "default")
    console.print(table)
    well = True
    for check, ok, words in _checks(settings):
        console.print(f"{'[green]ok[/green]  ' if ok else '[red]ILL[/red] '} {check}: {words}")
        well &= ok
    return well


def _checks(settings: Settings) -> Iterator[tuple[str, bool, str]]:
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
    file = make_url(settings.database()).database or ""
    if settings.database().startswith("sqlite") and not Path(file).exists():
        yield "database", True, f"{file} will be made at the first start"
        return
    try:
        behind = database.behind(settings.database())
    except (SQLAlchemyError, ReprogError) as error:
        yield "database", False, f"cannot be reached: {error}"
    else:
        yield "database", True, "reachable"
        yield "schema", not behind, "run `reprog db upgrade`" if behind else "of this release"
