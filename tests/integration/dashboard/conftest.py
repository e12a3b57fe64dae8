from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from dashboard_place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    yield made
    made.house.engine.dispose()


def fill(place: Place) -> SimpleNamespace:
    """A place with one of everything: ids by name."""
    connection, data = place.connection(), place.dataset()
    done, other, fresh = (place.job(connection, data, name) for name in ("done", "other", "waiting"))
    place.finish(done)
    place.finish(other, old=True)
    return SimpleNamespace(
        place=place, connection=connection, dataset=data, job=done, other=other, fresh=fresh
    )


@pytest.fixture
def full(place: Place) -> SimpleNamespace:
    """A place with one of everything that asks for no keys."""
    return fill(place)


@pytest.fixture
def full_and_locked(locked: Place) -> SimpleNamespace:
    """A place with one of everything that asks for keys."""
    return fill(locked)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Place]:
    """A place that asks for keys."""
    made = Place(tmp_path / "locked", auth="keys")
    yield made
    made.house.engine.dispose()
