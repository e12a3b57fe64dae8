"""Every method is in its page."""

from __future__ import annotations

from pathlib import Path

from app.methods import METHODS


def test_every_method_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "methods.md").read_text()
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows == set(METHODS)
