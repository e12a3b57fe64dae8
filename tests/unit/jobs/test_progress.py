"""Progress as a user sees it."""

from __future__ import annotations

from app.jobs.progress import RECALL, VERDICT, Meter


def test_throttled_until_is_told_while_it_lasts() -> None:
    meter = Meter(100)
    assert meter.progress("step", 1, 1_000.0)["throttled_until"] is None
    assert meter.progress("step", 1, 1_000.0, 1_030.5)["throttled_until"] == "1970-01-01T00:17:10.500Z"
    assert meter.progress("step", 2, 1_031.0, 1_030.5)["throttled_until"] is None


def test_reading_stored_answers_back_is_timed_by_what_is_read_and_a_verdict_by_nothing() -> None:
    meter = Meter(100)
    meter.progress("test", 10, 0.0)
    meter.progress("test", 60, 10.0)
    assert meter.progress(RECALL, 60, 11.0)["eta"] is None
    meter.read_back(3.0, 0.25)
    assert meter.progress(RECALL, 60, 14.0)["eta"] == {"p50": 9.0, "p90": 9.0}
    meter.read_back(0.0, 1.0)
    assert meter.progress(VERDICT, 60, 24.0)["eta"] is None
    assert meter.progress("test", 60, 25.0)["eta"] is not None
