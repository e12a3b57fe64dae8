"""One source model and one printed seed per test."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

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
