"""Refusals, warnings and forecasts: the numbers they name would do."""

from __future__ import annotations

import numpy as np
import pytest

from app.errors import BadRequest
from app.jobs.counsel import concerns, refuse_blunt, refuse_constant
from app.jobs.forecast import forecast
from app.jobs.quote import Plan
from app.jobs.spec import JobSpec

SPEC = JobSpec(name="j", connection_id="c", dataset_id="d")


def plan(views: int) -> Plan:
    return Plan(100, 900, 100, 1000, views, ())


@pytest.mark.parametrize(
    ("classes", "labels", "views", "needed"), [(10, 2, 3, 4), (5, 2, 2, 3), (9, 3, 1, 2)]
)
def test_hard_labels_make_only_so_many_patterns(classes: int, labels: int, views: int, needed: int) -> None:
    with pytest.raises(BadRequest, match="patterns") as caught:
        refuse_blunt(classes, labels, "label", views)
    assert caught.value.code == "too_many_classes"
    assert "at least" in (caught.value.hint or "")
    assert f"{needed} queries" in (caught.value.hint or "")
    refuse_blunt(classes, labels, "label", needed)
    refuse_blunt(classes, labels, "probability", views)


def test_one_label_says_nothing_unless_it_is_scored_by_itself() -> None:
    with pytest.raises(BadRequest, match="one label"):
        refuse_blunt(2, 1, "probability", 8)
    refuse_blunt(2, 1, "independent", 1)


def test_few_scores_and_small_classes_are_warned_of_with_the_number_that_would_do() -> None:
    per_class = dict.fromkeys("abcdefghij", 20) | {"a": 3}
    found = {c["code"]: c for c in concerns(SPEC, per_class, 3, "probability", plan(2))}
    assert set(found) == {"small_class", "few_source_labels"}
    assert "send 2 more" in found["small_class"]["hint"]
    assert found["few_source_labels"]["hint"].startswith("5 queries")
    assert concerns(SPEC, dict.fromkeys("ab", 20), 5, "probability", plan(1)) == []
    assert concerns(SPEC, dict.fromkeys("ab", 20), 0, "probability", plan(1)) == []


def test_constant_answers_are_refused_and_too_few_say_nothing() -> None:
    same = np.full((20, 3), 0.3)
    with pytest.raises(BadRequest, match="same answer"):
        refuse_constant(same, 100)
    refuse_constant(same[:5], 100)
    refuse_constant(same + np.arange(20)[:, None] / 100, 100)
    truncated = same.copy()
    truncated[3, 2] = np.nan  # another label was returned: not the same answer
    refuse_constant(truncated, 100)


def test_a_forecast_covers_a_curve_that_goes_on_and_never_falls() -> None:
    queries = np.array([500, 1000, 2000, 4000])
    truth = 0.9 - 0.5 * (500 / queries) ** 0.5
    told = forecast(list(zip(queries.tolist(), truth.tolist(), strict=True)), 100, 1200, "USD")
    assert told is not None
    assert [line["more_queries"] for line in told] == [1000, 2000, 4000, 12000]
    assert told[0]["more_cost"] == {"amount": "1.200000", "currency": "USD"}
    for line in told:
        at = 0.9 - 0.5 * (500 / (4000 + line["more_queries"])) ** 0.5
        low, middle, high = (line["val_accuracy"][name] for name in ("p10", "p50", "p90"))
        assert truth[-1] - 1e-6 <= low <= middle <= high <= 1
        assert low - 0.01 <= at <= high + 0.01
    flat = forecast([(q, 0.6) for q in queries.tolist()], 400, 0, "USD")
    assert flat is not None
    assert flat[0]["val_accuracy"]["p50"] < 0.64
    assert forecast([(500, 0.5), (900, 0.6)], 100, 0, "USD") is None
