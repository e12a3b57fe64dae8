"""One source model per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fault_source import Source, running_source


@pytest.fixture
def source() -> Iterator[Source]:
    with running_source() as running:
        yield running
