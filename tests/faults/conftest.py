"""One source model, one printed seed and one line of figures per test."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_source import Source, running_source


@pytest.fixture
def source() -> Iterator[Source]:
    with running_source() as running:
        yield running


@pytest.fixture
def seed() -> int:
    """What a run's chances are drawn from: printed, and given again as REPROG_TEST_SEED."""
    number = int(os.environ.get("REPROG_TEST_SEED") or random.SystemRandom().randrange(2**31))
    print(f"seed {number}")
    return number


@pytest.fixture
def figures(request: pytest.FixtureRequest, seed: int) -> Callable[[str], None]:
    """Print what a run came to; with REPROG_FIGURES also add it to that Markdown table (`make chaos`)."""

    def tell(text: str) -> None:
        print(text)
        if path := os.environ.get("REPROG_FIGURES"):
            file = Path(path)
            if not file.exists():
                file.write_text(_HEAD)
            with file.open("a") as table:
                table.write(f"| {request.node.name} | {seed} | {text} |\n")

    return tell


_HEAD = """## Faults, long forms

`make chaos`. A line is written when a run has passed: every invariant held, against the bill of the provider.
REPROG_TEST_SEED=<seed> draws the same chances again.

| test | seed | figures |
| --- | --- | --- |
"""
