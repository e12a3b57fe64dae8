"""docs/choosing-a-method.md: its figures are those of learning.json.

A figure stands before a comment that names it, `0.873<!-- digits/mod5/auto/r8/10000 -->`: the accuracy of
that row, or after a colon another of its values. `--report` writes them anew; a test holds them equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "choosing-a-method.md"
FIGURE = re.compile(r"([+-]?\d[\d.,]*)<!-- ([^ :]+)(?::(\w+))? -->")
BARE = re.compile(r"(?<![\d.\w/])0\.\d{2,}(?!\d*<!-- )")  # a share that names no row


def written(text: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The text with every figure as the results have it. Raises KeyError for a row that is not there."""

    def figure(match: re.Match[str]) -> str:
        _, key, name = match.groups()
        return f"{_shown(rows[key], name or 'accuracy')}<!-- {key}{f':{name}' if name else ''} -->"

    return FIGURE.sub(figure, text)


def _shown(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if name in ("over_head", "over_pixels"):
        return f"{100 * value[0]:+.1f}"
    if name == "usd":
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def update(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Rewrite the figures of the page."""
    if PAGE.exists():
        PAGE.write_text(written(PAGE.read_text(), rows))
