"""The documentation names everything a user can set or meet, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.methods import METHODS
from app.optimisers import OPTIMISERS
from app.providers import PROVIDERS
from app.settings import ClientSettings, Settings

ROOT = Path(__file__).parents[3]
NAMED_FILE = r"`((?:app|docs|examples|benchmarks|tests|scripts|migrations)/[\w./-]+)`"
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")), *ROOT.glob("examples/*.md")]


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    page = (DOCS / "settings.md").read_text()
    documented = set(re.findall(r"^\| `(REPROG_[A-Z_]+)`", page, re.MULTILINE))
    known = {f"REPROG_{name.upper()}" for cls in (Settings, ClientSettings) for name in cls.model_fields}
    assert documented == known


def test_every_provider_and_method_is_documented() -> None:
    providers, methods = (DOCS / "providers.md").read_text(), (DOCS / "methods.md").read_text()
    assert [name for name in PROVIDERS if f"`{name}`" not in providers] == []
    assert [name for name in METHODS if f"`{name}`" not in methods] == []


def test_every_optimiser_has_a_method() -> None:
    assert set(OPTIMISERS) <= set(METHODS)


def test_every_error_code_is_documented() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    codes = set[str]()
    for path in (ROOT / "app").rglob("*.py"):
        if "sandbox" not in path.parts:
            codes |= set(re.findall(r"\bcode(?:: str)? ?= ?\"([a-z][a-z0-9_]+)\"", path.read_text()))
    assert sorted(code for code in codes if f"`{code}`" not in page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for named in re.findall(NAMED_FILE, text):
        assert "NAME" in named or (ROOT / named).exists(), named
