"""Label mappings by hand, heads against chance and against brute force."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadRequest
from app.reprogramming import heads, pooled
from app.reprogramming.loss import class_weights, cross_entropy, focal
from app.reprogramming.mapping import (
    LabelMapping,
    bayesian_mapping,
    best_head,
    cross_fit,
    frequency_mapping,
    kernel_head,
    kernel_mapping,
    linear_head,
    linear_mapping,
    random_mapping,
    view_width,
)
from app.reprogramming.ridge import loo_ridge, one_hot

RNG = np.random.default_rng(0)


def share_right(said: np.ndarray, labels: np.ndarray) -> float:
    return float((said.argmax(axis=1) == labels).mean())


def blobs(n: int = 240, width: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(9).normal(size=(classes, width)) * 1.5
    return centres[labels] + rng.normal(size=(n, width)), labels


def ring(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A class inside another: nothing linear tells them apart."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    return x, (np.hypot(*x.T) > 1.18).astype(np.intp)


def bent(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four classes: side of a blurred line, inside or outside a ring."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    side = x[:, 2:].sum(axis=1) + rng.normal(size=n) > 0
    return x, 2 * side.astype(np.intp) + (np.hypot(*x[:, :2].T) > 1.18)


# ---------------------------------------------------------------- counted mappings


def test_group_scores_are_bar_equation_3() -> None:
    scores = np.array([[0.5, 0.1, 0.2, 0.2]])
    weights = np.array([[0.5, 0], [0, 0.5], [0.5, 0], [0, 0.5]])  # S_0 = {0, 2}, S_1 = {1, 3}
    mapping = LabelMapping("group", weights, np.zeros(2), np.zeros(4), np.ones(4))
    np.testing.assert_allclose(mapping.apply(scores), [[0.35 / 0.5, 0.15 / 0.5]])


def test_random_sets_are_disjoint_seeded_and_full() -> None:
    mapping = random_mapping(20, 3, 5, seed=4)
    assert ((mapping.weights > 0).sum(axis=0) == 5).all()
    assert ((mapping.weights > 0).sum(axis=1) <= 1).all()
    np.testing.assert_array_equal(mapping.weights, random_mapping(20, 3, 5, seed=4).weights)
    assert (mapping.weights != random_mapping(20, 3, 5, seed=5).weights).any()


def test_frequency_gives_a_contested_label_to_the_class_that_ranks_it_higher() -> None:
    def on_top(*labels: int) -> list[list[float]]:
        return [[0.9 if s == label else 0.02 for s in range(5)] for label in labels]

    # Class 0 sees label 0 four times, label 1 twice; class 1 label 1 first, label 0 second, label 2 once.
    scores = np.array(on_top(0, 0, 0, 0, 1, 1) + on_top(1, 1, 1, 0, 0, 2))
    labels = np.repeat([0, 1], 6)
    weights = frequency_mapping(scores, labels, 2, 2).weights
    assert set(np.flatnonzero(weights[:, 0])) >= {0}
    assert set(np.flatnonzero(weights[:, 1])) >= {1, 2}
    assert (weights > 0).sum(axis=0).tolist() == [2, 2]
    np.testing.assert_array_equal(weights[weights > 0], 0.5)


@pytest.mark.parametrize(("labels_per_class", "number"), [(3, "2"), (99, "2")])
def test_too_wide_a_mapping_names_the_number_that_works(labels_per_class: int, number: str) -> None:
    scores, labels = RNG.random((10, 5)), np.arange(10) % 2
    for make in (
        lambda: random_mapping(5, 2, labels_per_class, 0),
        lambda: frequency_mapping(scores, labels, 2, labels_per_class),
    ):
        with pytest.raises(BadRequest) as caught:
            make()
        assert caught.value.code == "mapping_too_wide"
        assert caught.value.hint
        assert f"most {number} labels" in caught.value.hint


def test_more_classes_than_labels_points_to_another_mapping() -> None:
    with pytest.raises(BadRequest) as caught:
        random_mapping(5, 10, 1, 0)
    assert caught.value.hint
    assert "linear" in caught.value.hint


def test_bayesian_by_hand() -> None:
    scores = np.array([[0.8, 0.2, 0], [0.7, 0.3, 0], [0.4, 0.6, 0], [0.9, 0.1, 0]])
    labels = np.array([0, 0, 1, 1])
    # Joint counts: label 0 {2, 1}, label 1 {0, 1}, label 2 {0, 0}; posterior with +1 below the line.
    posterior = np.array([[2 / 4, 1 / 4], [0, 1 / 2], [0, 0]])
    np.testing.assert_allclose(bayesian_mapping(scores, labels, 2).weights, posterior / posterior.sum(axis=0))
    joint = np.array([[1.5, 1.3], [0.5, 0.7], [0, 0]])
    posterior = joint / (joint.sum(axis=1, keepdims=True) + 1)
    soft = bayesian_mapping(scores, labels, 2, top=2).weights
    np.testing.assert_allclose(soft, posterior / posterior.sum(axis=0))


def test_counted_mappings_read_censored_scores() -> None:
    scores = np.where(RNG.random((60, 6)) < 0.5, np.nan, RNG.random((60, 6)))
    labels = np.arange(60) % 2
    for mapping in (frequency_mapping(scores, labels, 2, 2), bayesian_mapping(scores, labels, 2, top=3)):
        np.testing.assert_allclose(mapping.apply(scores).sum(axis=1), 1)


# ---------------------------------------------------------------- fitted heads


def test_heads_beat_chance_on_rows_they_have_not_seen() -> None:
    x, y = blobs()
    new, truth = blobs(seed=1)
    for head in (linear_mapping(x, y, 3), kernel_mapping(x, y, 3), best_head(x, y, 3)[0]):
        scores = head.apply(new)
        np.testing.assert_allclose(scores.sum(axis=1), 1)
        assert (scores.argmax(axis=1) == truth).mean() > 0.85


def test_the_linear_head_is_the_logistic_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = blobs()
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    penalty = 1e-2
    rival = LogisticRegression(C=1 / (penalty * len(y)), tol=1e-8, max_iter=1000).fit(z, y)
    head = linear_mapping(x, y, 3, l2=penalty)
    np.testing.assert_allclose(head.apply(x), rival.predict_proba(z), atol=2e-3)


def test_a_head_on_many_labels_reads_their_differences_and_is_served_as_any_linear_head() -> None:
    """What all labels of a view have in common, drawn anew for each image, is no part of what it says."""
    x, y = blobs()
    rng = np.random.default_rng(2)
    labels, pixels = 24, 3
    wide = np.concatenate([x, rng.normal(size=(len(x), 2 * labels - x.shape[1] + pixels))], axis=1)
    offset = np.repeat(20 * rng.normal(size=(len(x), 2)), labels, axis=1)
    moved = wide.copy()
    moved[:, : 2 * labels] += offset
    assert view_width(labels, "probability") == labels
    assert view_width(5, "probability") == view_width(labels, "independent") == 0
    head = linear_mapping(wide, y, 3, pixels=pixels, view=labels)
    np.testing.assert_allclose(head.apply(moved), head.apply(wide), atol=1e-9)
    other = linear_mapping(moved, y, 3, pixels=pixels, view=labels)
    np.testing.assert_allclose(other.apply(wide), head.apply(wide), atol=2e-3)
    assert (head.apply(wide).argmax(axis=1) == y).mean() > 0.85


def test_a_head_is_as_sure_as_it_is_right() -> None:
    """Few rows, many columns: the penalty is for accuracy, the temperature for calibration."""
    rng = np.random.default_rng(4)
    direction = rng.normal(size=400) / 10
    x = rng.normal(size=(1200, 400))
    y = (x @ direction + 2 * rng.normal(size=1200) > 0).astype(np.intp)
    said = linear_mapping(x[:200], y[:200], 2).apply(x[200:])
    sure, right = said.max(axis=1).mean(), (said.argmax(axis=1) == y[200:]).mean()
    assert abs(sure - right) < 0.08


def test_the_kernel_head_is_tried_where_a_line_fails() -> None:
    x, y = ring()
    new, truth = ring(seed=1)
    head, held_out = best_head(x, y, 2)
    assert head.kind in ("kernel", "mixed", "whitened")
    right = (head.apply(new).argmax(axis=1) == truth).mean()
    assert right > 0.9
    assert abs(right - share_right(held_out, y)) < 0.07


def test_a_mixed_head_is_the_geometric_mean_of_a_linear_and_a_kernel_head() -> None:
    """Two classes by a line, two more by a ring: each head knows one half."""
    x, y = bent()
    new, truth = bent(seed=1)
    head, held_out = best_head(x, y, 4)
    assert head.kind == "mixed"
    line, kernel = linear_mapping(x, y, 4), kernel_mapping(x, y, 4)
    logs = [np.log(h.apply(new)) for h in (line, kernel, head)]
    logs = np.stack([log - log.mean(axis=1, keepdims=True) for log in logs]).reshape(3, -1)
    shares, *_ = np.linalg.lstsq(logs[:2].T, logs[2], rcond=None)
    np.testing.assert_allclose(shares @ logs[:2], logs[2], atol=1e-6)
    assert (shares > 0.1).all()
    rows = np.arange(len(truth))
    loss, *alone = (-np.log(h.apply(new)[rows, truth]).mean() for h in (head, line, kernel))
    assert loss < min(alone)
    assert abs(share_right(head.apply(new), truth) - share_right(held_out, y)) < 0.07


def test_no_signal_is_reported_as_chance() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 8)), rng.integers(0, 2, 300)
    _, held_out = best_head(x, y, 2)
    assert abs(share_right(held_out, y) - 0.5) < 0.12


def test_groups_stop_a_head_from_recognising_its_own_copies() -> None:
    """Each image ten times over, labels at random: without groups any kernel knows them all."""
    rng = np.random.default_rng(5)
    x, y = np.repeat(rng.normal(size=(30, 4)), 10, axis=0), np.repeat(rng.integers(0, 2, 30), 10)
    x += 0.01 * rng.normal(size=x.shape)
    copies = np.repeat(np.arange(30), 10)
    assert share_right(best_head(x, y, 2)[1], y) > 0.95
    assert share_right(best_head(x, y, 2, groups=copies)[1], y) < 0.75


@pytest.mark.parametrize("pixels", [0, 6])
@pytest.mark.parametrize(
    "head",
    [
        lambda *a, **k: best_head(*a, **k),
        lambda *a, **k: linear_head(*a, **k),
        lambda *a, **k: linear_head(*a, **k, view=12),
        lambda *a, **k: kernel_head(*a, **k),
    ],
    ids=["best", "linear", "views", "kernel"],
)
def test_labels_of_rows_set_aside_change_nothing_that_is_said(head: Any, pixels: int) -> None:
    """They are in the head that is served, and in nothing that judges it."""
    x, y = blobs(120, width=24 + pixels)
    aside = np.arange(120) >= 90
    other = np.where(aside, (y + 1) % 3, y)
    served, said = head(x, y, 3, pixels=pixels, aside=aside)
    served_other, said_other = head(x, other, 3, pixels=pixels, aside=aside)
    np.testing.assert_array_equal(said, said_other)
    assert share_right(said[aside], y[aside]) > 0.8
    assert not np.array_equal(served.weights, served_other.weights)


def test_rows_set_aside_are_judged_by_the_head_of_the_others() -> None:
    """A kernel's columns are scaled by all rows; but for that it is the head of the others."""
    x, y = ring(400)
    aside = np.arange(400) >= 300
    _, said = kernel_head(x, y, 2, aside=aside)
    alone = kernel_mapping(x[~aside], y[~aside], 2).apply(x[aside])
    assert np.abs(said[aside] - alone).mean() < 0.02


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31 - 1),
    n=st.integers(6, 40),
    classes=st.integers(2, 7),
    width=st.sampled_from([2, 5, 24]),
    views=st.integers(1, 3),
    units=st.integers(0, 5),
    kind=st.sampled_from(["any", "constant", "one differs", "hard"]),
)
def test_whatever_the_answers_a_head_is_finite(
    seed: int, n: int, classes: int, width: int, views: int, units: int, kind: str
) -> None:
    """Few rows, classes without any, constant columns, one group of all: a head comes out all the same."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, width * views)), rng.integers(classes, size=n)
    if kind != "any":
        x = (x > 1).astype(float) if kind == "hard" else np.ones_like(x)
        x[0, 0] += kind == "one differs"
    aside = np.arange(n) >= n - max(1, n // 5)
    groups = np.where(aside, 99, rng.integers(units, size=n)) if units else None
    view = width if width >= 20 else 0
    for out in (None, aside):
        head, said = best_head(x, y, classes, groups=groups, view=view, aside=out)
        np.testing.assert_allclose(said.sum(axis=1), 1)
        assert np.isfinite(head.apply(x)).all()


def leaning(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A ring in two directions that a shared rise and fall of all columns, twenty times as large, drowns."""
    rng = np.random.default_rng(seed)
    x, y = ring(n, seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(5, 5)))[0]
    other = np.concatenate([20 * rng.normal(size=(n, 1)), 0.05 * rng.normal(size=(n, 2))], axis=1)
    return np.concatenate([x[:, :2], other], axis=1) @ turn, y


def test_columns_that_lean_on_each_other_are_whitened(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = leaning()
    new, truth = leaning(seed=1)
    head, said = best_head(x, y, 2)
    assert head.kind == "whitened"
    monkeypatch.setattr(heads, "WHITENINGS", (0.0,))
    plain, _ = best_head(x, y, 2)
    assert plain.kind != "whitened"
    right = [share_right(one.apply(new), truth) for one in (plain, head)]
    assert right[1] > right[0] + 0.05
    assert abs(share_right(said, y) - right[1]) < 0.07
    again = LabelMapping.from_arrays(*head.to_arrays())
    np.testing.assert_array_equal(again.apply(new), head.apply(new))


def test_many_labels_that_vary_together_are_emphasised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten classes in a row along the direction in which labels vary most; the many others say nothing."""
    rng = np.random.default_rng(3)
    y = rng.integers(10, size=900)
    along = rng.normal(size=(900, 150)) * 2 * np.arange(1, 151) ** -0.7
    along[:, :2] = 3 * (np.stack([y - 5, np.cos(y)], axis=1) + 0.4 * rng.normal(size=(900, 2)))
    x = along @ np.linalg.qr(rng.normal(size=(150, 150)))[0]
    right = list[float]()
    for powers in ((0.0,), (0.0, 1.0)):
        monkeypatch.setattr(pooled, "EMPHASES", powers)
        pooled._RECENT = pooled._Recent()
        head, _ = best_head(x[:200], y[:200], 10, view=150)
        right.append(share_right(head.apply(x[200:]), y[200:]))
    assert right[1] > right[0] + 0.05


def test_a_view_met_again_has_the_same_fit() -> None:
    x, y = blobs(90, width=36)
    one = best_head(x[:, :24], y, 3, view=12)
    pooled._RECENT = pooled._Recent()
    grown = best_head(x, y, 3, view=12)
    assert len(pooled._RECENT._fits) == 3
    again = best_head(x[:, :24], y, 3, view=12)
    assert len(pooled._RECENT._fits) == 3
    np.testing.assert_array_equal(again[1], one[1])
    np.testing.assert_array_equal(again[0].weights, one[0].weights)
    np.testing.assert_array_equal(grown[1], best_head(x, y, 3, view=12)[1])


def test_fits_are_the_same_twice() -> None:
    x, y = blobs()
    for fit in (linear_mapping, kernel_mapping):
        np.testing.assert_array_equal(fit(x, y, 3).weights, fit(x, y, 3).weights)


def test_wide_and_constant_columns_do_no_harm() -> None:
    x, y = blobs(60)
    wide = np.concatenate([x, np.zeros((60, 3)), RNG.normal(size=(60, 200)) * 1e-6], axis=1)
    assert (linear_mapping(wide, y, 3).apply(wide).argmax(axis=1) == y).mean() > 0.85
    constant = np.ones((60, 4))
    np.testing.assert_allclose(linear_mapping(constant, y, 3).apply(constant).sum(axis=1), 1)
    np.testing.assert_allclose(kernel_mapping(constant, y, 3).apply(constant).sum(axis=1), 1)


def test_cross_fit_predicts_what_it_did_not_see() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(80, 300)), rng.integers(0, 2, 80)
    assert (linear_mapping(x, y, 2, l2=1e-3).apply(x).argmax(axis=1) == y).all()  # interpolates
    out = cross_fit(x, y, 2)
    assert (out.argmax(axis=1) == y).mean() < 0.72


def test_arrays_round_trip_and_nonsense_is_refused() -> None:
    x, y = blobs()
    mixed, _ = best_head(*bent(), 4)
    for head in (linear_mapping(x, y, 3), kernel_mapping(x, y, 3), random_mapping(6, 3, 2, 0), mixed):
        again = LabelMapping.from_arrays(*head.to_arrays())
        columns = np.abs(x if head is not mixed else bent()[0])
        np.testing.assert_array_equal(again.apply(columns), head.apply(columns))
    with pytest.raises(ValueError, match="finite"):
        LabelMapping("linear", np.full((2, 2), np.nan), np.zeros(2), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="fit the weights"):
        LabelMapping("linear", np.zeros((2, 2)), np.zeros(3), np.zeros(2), np.ones(2))
    for part in ("support", "linear"):
        arrays, config = mixed.to_arrays()
        with pytest.raises(ValueError, match="needs them"):
            LabelMapping.from_arrays({name: a for name, a in arrays.items() if name != part}, config)
        with pytest.raises(ValueError, match="fit the"):
            LabelMapping.from_arrays({**arrays, part: arrays[part][:, :1]}, config)


# ---------------------------------------------------------------- leave-one-out ridge


def brute_force(
    x: np.ndarray, y: np.ndarray, classes: int, alpha: float, held: list[np.ndarray]
) -> np.ndarray:
    """Ridge with a free intercept, refitted without each part; the penalty as for all rows."""
    targets, out = one_hot(y, classes), np.empty((len(y), classes))
    centred = x - x.mean(axis=0)
    penalty = alpha * (centred**2).sum() / len(x)
    wide = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    ridge = penalty * np.diag([1.0] * x.shape[1] + [0.0])
    for part in held:
        kept = np.setdiff1d(np.arange(len(x)), part)
        weights = np.linalg.solve(wide[kept].T @ wide[kept] + ridge, wide[kept].T @ targets[kept])
        out[part] = wide[part] @ weights
    return out


@pytest.mark.parametrize("width", [3, 60])
@pytest.mark.parametrize("alpha", [1e-3, 0.5])
def test_leave_one_out_equals_the_refit(width: int, alpha: float) -> None:
    x, y = blobs(40, width)
    result = loo_ridge(x, y, 3, alphas=(alpha,))
    wanted = brute_force(x, y, 3, alpha, [np.array([i]) for i in range(40)])
    np.testing.assert_allclose(result.predictions, wanted, atol=1e-6)
    assert result.accuracy == pytest.approx((wanted.argmax(axis=1) == y).mean())
    assert result.loss == pytest.approx(((wanted - one_hot(y, 3)) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("width", [4, 50])
def test_leave_a_group_out_equals_the_refit(width: int) -> None:
    x, y = blobs(36, width)
    groups = np.concatenate([np.arange(12), np.repeat(np.arange(12, 20), 3)])
    result = loo_ridge(x, y, 3, alphas=(0.1,), groups=groups)
    wanted = brute_force(x, y, 3, 0.1, [np.flatnonzero(groups == g) for g in np.unique(groups)])
    np.testing.assert_allclose(result.predictions, wanted, atol=1e-6)


def test_a_batch_of_candidates_equals_one_at_a_time() -> None:
    _, y = blobs(50)
    batch = np.stack([blobs(50, 5)[0], RNG.normal(size=(50, 5)), np.ones((50, 5))])
    together = loo_ridge(batch, y, 3)
    for i, x in enumerate(batch):
        alone = loo_ridge(x, y, 3)
        np.testing.assert_allclose(together.predictions[i], alone.predictions, atol=1e-9)
        assert together.loss[i] == pytest.approx(float(alone.loss))
    assert together.loss.argmin() == 0


# ---------------------------------------------------------------- losses


def test_focal_without_its_knobs_is_cross_entropy() -> None:
    scores, labels = RNG.dirichlet(np.ones(4), (3, 20)), RNG.integers(0, 4, 20)
    plain = cross_entropy(scores, labels)
    np.testing.assert_allclose(focal(scores, labels, 0.0, np.ones(4)), plain)
    by_hand = [-np.log(scores[c, np.arange(20), labels]).mean() for c in range(3)]
    np.testing.assert_allclose(plain, by_hand)
    assert float(cross_entropy(scores[1], labels)) == pytest.approx(by_hand[1])


def test_focal_by_hand() -> None:
    scores, labels = np.array([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]]), np.array([0, 1, 0])
    weights = class_weights(labels, 2)
    np.testing.assert_allclose(weights, [0.75, 1.5])
    wanted = np.mean(
        [-0.75 * 0.3**2 * np.log(0.7), -1.5 * 0.4**2 * np.log(0.6), -0.75 * 0.1**2 * np.log(0.9)]
    )
    assert float(focal(scores, labels, 2.0, weights)) == pytest.approx(wanted)


def test_a_zero_score_costs_much_but_not_everything() -> None:
    assert np.isfinite(cross_entropy(np.array([[1.0, 0.0]]), np.array([1])))
