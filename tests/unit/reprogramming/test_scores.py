"""Scores of every kind, rounded, censored and saturated, to numbers that add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contracts import ScoreKind
from app.reprogramming.scores import decimals, log_scores, score_floor, shares

RNG = np.random.default_rng(0)
NAN = np.nan


def softmax_scores(n: int = 200, k: int = 6) -> np.ndarray:
    x = np.exp(RNG.normal(size=(n, k)) * 2)
    return x / x.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5, 6])
def test_decimals_are_measured_through_float32(digits: int) -> None:
    seen = np.round(softmax_scores(), digits).astype(np.float32).astype(np.float64)
    assert decimals(seen) == digits
    assert score_floor(seen, "probability") == pytest.approx(0.5 * 10.0**-digits)


def test_scores_that_are_not_rounded_have_no_decimals() -> None:
    seen = softmax_scores().astype(np.float32).astype(np.float64)
    assert decimals(seen) is None
    assert score_floor(seen, "probability") == pytest.approx(seen.min() / 2)
    assert score_floor(np.array([[1.0 / 3, 1e-30]]), "probability") >= 1e-7


def test_a_censored_score_lies_under_the_smallest_returned() -> None:
    top = np.array([[0.9, 0.08, NAN, NAN], [NAN, NAN, 0.55, 0.4]])
    assert score_floor(top, "probability") == pytest.approx(0.04)
    features = log_scores(top, score_floor(top, "probability"), "probability")
    assert np.isfinite(features).all()
    assert features[0, 2] == pytest.approx(np.log(0.04))
    assert features[0, 1] == pytest.approx(np.log(0.08))


def test_percent_is_probability_in_other_units() -> None:
    scores = np.round(softmax_scores(), 4)
    floor = score_floor(scores, "probability")
    assert score_floor(scores * 100, "percent") == pytest.approx(100 * floor)
    np.testing.assert_allclose(
        log_scores(scores * 100, 100 * floor, "percent"), log_scores(scores, floor, "independent"), rtol=1e-9
    )


def test_log_odds_are_symmetric_and_clipped() -> None:
    out = log_scores(np.array([[0.0, 1e-9, 0.5, 1.0, NAN]]), 1e-3, "independent")[0]
    edge = np.log(1e-3 / (1 - 1e-3))
    np.testing.assert_allclose(out, [edge, edge, 0, -edge, edge], atol=1e-12)


def test_other_kinds() -> None:
    raw = np.array([[2.5, -3.0, NAN]])
    floor = score_floor(raw, "logit")
    assert log_scores(raw, floor, "logit").tolist() == [[2.5, -3.0, -4.0]]
    assert log_scores(np.array([[4.0, NAN]]), 0.0, "severity").tolist() == [[4.0, 0.0]]
    assert log_scores(np.array([[5.0, 1.0]]), 0.0, "likelihood").tolist() == [[5.0, 1.0]]
    assert log_scores(np.array([[1.0, NAN, 0.0]]), 0.0, "label").tolist() == [[1.0, 0.0, 0.0]]


def test_a_censored_code_is_never_the_code_zero() -> None:
    seen = np.array([[4.0, NAN, 0.0], [NAN, 2.0, 0.0]])
    floor = score_floor(seen, "severity")
    assert floor < 0
    features = log_scores(seen, floor, "severity")
    assert features[0, 1] == features[1, 0] == floor != features[0, 2]
    assert shares(np.array([[4.0, 2.0, NAN]]), "likelihood")[0].tolist() == [4.0, 2.0, 1.0]
    assert score_floor(np.array([[1.0, 0.0]]), "label") == 0


KINDS: list[ScoreKind] = ["probability", "independent", "percent", "logit", "severity", "likelihood", "label"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.just(NAN), st.floats(0, 1)), min_size=6, max_size=6), st.sampled_from(KINDS))
def test_whatever_comes_is_finite(values: list[float], kind: ScoreKind) -> None:
    scores = np.array(values).reshape(2, 3)
    assert np.isfinite(log_scores(scores, score_floor(scores, kind), kind)).all()
    mass = shares(scores, kind)
    assert np.isfinite(mass).all()
    assert (mass >= 0).all()


def test_a_floor_per_column_and_leading_axes() -> None:
    scores = np.full((2, 3, 2), NAN)
    out = log_scores(scores, np.array([0.1, 0.01]), "probability")
    np.testing.assert_allclose(out[1, 2], np.log([0.1, 0.01]))


def test_shares_give_censored_labels_what_is_left() -> None:
    np.testing.assert_allclose(
        shares(np.array([[0.9, 0.06, NAN, NAN]]), "probability")[0], [0.9, 0.06, 0.02, 0.02]
    )
    np.testing.assert_allclose(shares(np.array([[0.1, NAN]]), "independent")[0], [0.1, 0.1])
    np.testing.assert_allclose(shares(np.array([[0.0, 0.0]]), "logit")[0], [0.5, 0.5])
    np.testing.assert_allclose(shares(np.array([[NAN, NAN]]), "probability")[0], [0.5, 0.5])
