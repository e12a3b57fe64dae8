"""Each import contract is shown to bite: a forbidden import planted in a copy of the code is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PLANTED = [
    ("Imports go down only", "app/storage/rate.py", "import app.gateway.query"),
    ("Imports go down only", "app/jobs/quote.py", "import app.api.deps"),
    ("Imports go down only", "app/contracts.py", "import app.storage.tables"),
    ("Maths is pure", "app/reprogramming/loss.py", "import httpx"),
    ("Maths is pure", "app/optimisers/bar.py", "import sqlalchemy"),
    ("Maths is pure", "app/methods/race.py", "import fastapi"),
    ("Providers only translate", "app/providers/clarifai.py", "import sqlalchemy"),
    ("The sandbox plays the outside world", "app/sandbox/bill.py", "import app.contracts"),
    ("The web process runs no job", "app/api/jobs.py", "import app.jobs.run"),
    ("Waiting is the gateway's", "app/storage/rate.py", "import tenacity"),
]


def linted(folder: Path) -> tuple[int, str]:
    """`lint-imports` on the code in `folder`, which stands before the installed one on the path."""
    script = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    run = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    ignored = shutil.ignore_patterns("*.onnx", "__pycache__", "static")
    shutil.copytree(ROOT / "app", folder / "app", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_the_code_as_it_is_keeps_all_contracts(code: Path) -> None:
    status, words = linted(code)
    assert status == 0, words


@pytest.mark.parametrize(("contract", "file", "line"), PLANTED)
def test_a_planted_import_is_refused(code: Path, contract: str, file: str, line: str) -> None:
    path = code / file
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        status, words = linted(code)
    finally:
        path.write_text(before)
    assert status != 0
    assert f"{contract} BROKEN" in words
