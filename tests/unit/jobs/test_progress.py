"""Progress as a user sees it."""

from __future__ import annotations

from app.jobs.progress import Meter


def test_throttled_until_is_told_while_it_lasts() -> None:
    meter = Meter(100)
    assert meter.progress("step", 1, 1_000.0)["throttled_until"] is None
    assert meter.progress("step", 1, 1_000.0, 1_030.5)["throttled_until"] == "1970-01-01T00:17:10.500Z"
    assert meter.progress("step", 2, 1_031.0, 1_030.5)["throttled_until"] is None
