"""Statistics against known values and against simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.datasets import load_digits

from app.reprogramming import metrics
from app.reprogramming.picture import features
from app.reprogramming.splits import fold_numbers, stratified_split

RNG = np.random.default_rng(0)


def test_wilson_against_published_values() -> None:
    low, high = metrics.wilson(81, 263)  # Newcombe 1998, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = metrics.wilson(15, 148)
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    assert metrics.wilson(0, 20)[0] == 0
    assert round(metrics.wilson(0, 20)[1], 4) == 0.1611
    assert metrics.wilson(29, 29)[1] == 1
    assert metrics.wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_is_the_exact_binomial() -> None:
    def flags(both: int, a: int, b: int, none: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.repeat([True, True, False, False], [both, a, b, none])
        return first, np.repeat([True, False, True, False], [both, a, b, none])

    assert metrics.mcnemar(*flags(10, 0, 0, 5)) == 1
    assert metrics.mcnemar(*flags(10, 0, 6, 5)) == pytest.approx(2 / 64)
    assert metrics.mcnemar(*flags(3, 1, 8, 9)) == pytest.approx(2 * (1 + 9) / 512)
    assert metrics.mcnemar(*flags(0, 5, 5, 0)) == 1
    assert metrics.mcnemar(*flags(0, 3000, 1000, 0)) < 1e-200


def test_scores_agree_with_scikit_learn() -> None:
    labels, predicted = RNG.integers(0, 4, 200), RNG.integers(0, 4, 200)
    predicted[:90] = labels[:90]
    scores = RNG.dirichlet(np.ones(4), 200).round(2)  # ties
    scores /= scores.sum(axis=1, keepdims=True)
    assert metrics.accuracy(labels, predicted) == reference.accuracy_score(labels, predicted)
    assert metrics.balanced_accuracy(labels, predicted) == pytest.approx(
        reference.balanced_accuracy_score(labels, predicted)
    )
    assert metrics.macro_f1(labels, predicted) == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    counts = metrics.confusion(labels, predicted, 4)
    np.testing.assert_array_equal(counts, reference.confusion_matrix(labels, predicted))
    assert metrics.auroc(scores, labels) == pytest.approx(
        reference.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    )
    report = reference.classification_report(labels, predicted, output_dict=True)
    for j, row in enumerate(metrics.per_class(counts, "abcd")):
        assert row["recall"] == pytest.approx(report[str(j)]["recall"], abs=1e-6)
        assert row["precision"] == pytest.approx(report[str(j)]["precision"], abs=1e-6)
        assert row["f1"] == pytest.approx(report[str(j)]["f1-score"], abs=1e-6)
        for name in ("recall", "precision", "f1"):
            low, high = row[f"{name}_ci95"]
            assert 0 <= low < row[name] < high <= 1
        assert row["recall_ci95"] == metrics.ends(int(counts[j, j]), int(counts[j].sum()))


def test_classes_without_images_are_none_not_zero() -> None:
    rows = metrics.per_class(np.array([[3, 0], [0, 0]]), ("here", "absent"))
    assert {name for name, value in rows[1].items() if value is not None} == {"label", "support"}
    assert metrics.auroc(np.array([[0.9, 0.1]]), np.array([0])) is None


@pytest.mark.parametrize(("images", "right"), [(30, 0.9), (60, 0.6), (300, 0.6), (300, 0.3)])
def test_f1_intervals_hold_what_they_say(images: int, right: float) -> None:
    """Of many draws of few or many images 95 % intervals hold the F1 of all images about 95 times of 100."""
    labels = RNG.integers(0, 3, 60_000)
    predicted = np.where(RNG.random(60_000) < right, labels, RNG.integers(0, 3, 60_000))
    truth, held = metrics.f1_scores(labels, predicted, 3), 0
    for _ in range(400):
        rows = RNG.integers(0, 60_000, images)
        found = metrics.per_class(metrics.confusion(labels[rows], predicted[rows], 3), "abc")
        held += sum(
            row["f1_ci95"][0] <= f1 <= row["f1_ci95"][1] for row, f1 in zip(found, truth, strict=True)
        )
    assert 0.93 < held / 1200 < 0.98
    assert metrics.f1_ends(5, 5) == pytest.approx([0.7225, 1], abs=1e-4)  # all five found: not sure yet
    assert metrics.f1_ends(0, 0) is None


def test_an_interval_and_a_test_that_disagree_are_both_told() -> None:
    program = np.repeat([True, True, False, False], [50, 20, 9, 21])
    head = np.repeat([True, False, True, False], [50, 20, 9, 21])
    said = metrics.verdict(program, head, head, queries_per_prediction=2)
    assert not said["program_helps"]
    assert "95 % interval 0.5 to 21.1, but p = 0.061 by the exact test that decides" in said["sentence"]


def test_an_interval_stands_beside_a_validation_accuracy_where_its_images_are_known() -> None:
    assert metrics.with_interval({"val_accuracy": 15 / 148}, 148)["val_ci95"] == pytest.approx(
        [0.0624, 0.1605], abs=5e-5
    )
    both = metrics.with_interval({"val_accuracy": 0.5, "candidate_val_accuracy": 0.25}, 20)
    assert both["candidate_val_ci95"] == metrics.ends(5, 20)
    race = metrics.with_interval({"loo_accuracy": 0.5, "loo_images": 60}, None)
    assert race["loo_ci95"] == pytest.approx(metrics.wilson(30, 60), abs=1e-6)
    assert metrics.with_interval({"val_accuracy": 0.5}, None) == {"val_accuracy": 0.5}
    assert metrics.with_interval({"loss": 0.5}, 20) == {"loss": 0.5}


def test_calibration_error_by_hand() -> None:
    scores = np.array([[0.95, 0.05]] * 4 + [[0.4, 0.6]] * 4)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    assert metrics.ece(scores, labels, bins=10) == pytest.approx(
        0.5 * abs(0.75 - 0.95) + 0.5 * abs(0.5 - 0.6)
    )


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    values = RNG.normal(size=400)
    low, high = metrics.bootstrap_interval(lambda rows: float(values[rows].mean()), 400, seed=1)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def pairs(rng: np.random.Generator, n: int, both: float, a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    which = rng.choice(4, n, p=[both, a, b, 1 - both - a - b])
    return (which == 0) | (which == 1), (which == 0) | (which == 2)


@pytest.mark.parametrize(
    ("n", "cells"), [(100, (0.6, 0.1, 0.1)), (300, (0.5, 0.2, 0.05)), (60, (0.8, 0.05, 0.03))]
)
def test_the_difference_interval_covers(n: int, cells: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    truth, covered = cells[1] - cells[2], 0
    for _ in range(800):
        low, high = metrics.paired_difference_interval(*pairs(rng, n, *cells))
        covered += low <= truth <= high
    assert covered / 800 >= 0.935


def test_the_verdict_is_right_on_nulls_and_sees_a_gain() -> None:
    """No gain over the head: said so at least 95 times of 100. 18 points: seen nearly always."""
    rng = np.random.default_rng(11)
    wrong = seen = beaten = 0
    for _ in range(600):
        program, head = pairs(rng, 200, 0.5, 0.15, 0.15)
        pixels = pairs(rng, 200, 0.5, 0.15, 0.15)[0]
        said = metrics.verdict(program, head, pixels, queries_per_prediction=4)
        wrong += said["program_helps"]
        beaten += said["beats_pixels"]
        program, head = pairs(rng, 200, 0.5, 0.25, 0.07)
        seen += metrics.verdict(program, head, head, queries_per_prediction=4)["program_helps"]
    assert wrong / 600 <= 0.05
    assert beaten / 600 <= 0.05
    assert seen / 600 >= 0.9


def test_the_verdict_speaks_plainly() -> None:
    program, head = np.repeat([True, False], [87, 13]), np.repeat([True, False], [37, 63])
    good = metrics.verdict(program, head, head, queries_per_prediction=4)
    assert good["program_helps"]
    assert good["beats_pixels"]
    assert good["sentence"].startswith(
        "Adds 50 points over a linear head on the API's scores, 95 % interval "
    )
    assert "costs 4 queries a prediction" in good["sentence"]
    assert "do not buy" not in good["sentence"]
    useless = metrics.verdict(program, program, np.ones(100, bool), queries_per_prediction=1)
    assert not useless["program_helps"]
    assert useless["p_value"] == 1
    assert "costs 1 query a prediction" in useless["sentence"]
    assert "your pixels, right 100.0% (96.3% to 100.0%) without a query: do not buy" in useless["sentence"]
    pixels_better = metrics.verdict(program, head, np.ones(100, bool), queries_per_prediction=4)
    assert pixels_better["program_helps"]
    assert not pixels_better["beats_pixels"]
    assert "do not buy this" in pixels_better["sentence"]


def test_a_fused_program_is_not_praised_for_its_pixels() -> None:
    """Scores no better than the head's; with the pixels beside them nearly always right, as pixels alone."""
    fused, head = np.repeat([True, False], [97, 3]), np.repeat([True, False], [40, 60])
    said = metrics.verdict(fused, head, fused, queries_per_prediction=1, scores_alone=head)
    assert not said["program_helps"]
    assert not said["beats_pixels"]
    assert "With your pixels beside the scores it is right 97.0% (91.5% to 99.0%)." in said["sentence"]
    assert said["sentence"].endswith("do not buy this.")


def test_a_better_head_on_the_plain_picture_is_not_a_program() -> None:
    served, head = np.repeat([True, False], [97, 3]), np.repeat([True, False], [40, 60])
    said = metrics.verdict(served, head, head, queries_per_prediction=1, plain=True)
    assert not said["program_helps"]
    assert said["sentence"].startswith("No program beats the plain picture, which is served with its best")
    assert "Adds 57 points over a linear head" in said["sentence"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.18, "18"), (0.005, "0.5"), (-0.03125, "-3.1"), (0.0, "0"), (-0.0001, "0"), (1.0, "100")],
)
def test_points_read_well(share: float, text: str) -> None:
    assert metrics._points(share) == text


# ---------------------------------------------------------------- splits


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=120), st.integers(0, 5))
def test_a_split_loses_nothing_and_spreads_every_class(values: list[int], seed: int) -> None:
    labels = np.array(values, dtype=np.intp)
    parts = stratified_split(labels, (0.6, 0.2, 0.2), seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(values)))
    for j in np.unique(labels):
        n = int((labels == j).sum())
        counts = [int((labels[part] == j).sum()) for part in parts]
        if n >= 3:
            assert min(counts) >= 1
        if n >= 10:
            assert all(abs(c - f * n) <= 1 for c, f in zip(counts, (0.6, 0.2, 0.2), strict=True))
    again = stratified_split(labels, (0.6, 0.2, 0.2), seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 25)), min_size=3, max_size=90))
def test_groups_stay_together(rows: list[tuple[int, int]]) -> None:
    labels, groups = np.array([r[0] for r in rows]), np.array([f"patient {r[1]}" for r in rows])
    parts = stratified_split(labels, (0.5, 0.25, 0.25), 0, groups)
    assert sum(len(part) for part in parts) == len(rows)
    names = [set(groups[part]) for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]


def test_grouped_parts_are_near_their_size() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(150), rng.integers(1, 7, 150))
    labels = rng.integers(0, 7, 150)[groups]
    parts = stratified_split(labels, (0.6, 0.2, 0.2), 1, groups)
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(part) / len(groups) - share) < 0.04
        assert len(np.unique(labels[part])) == 7


def test_folds_are_even() -> None:
    labels = np.arange(90) % 3
    folds = fold_numbers(labels, 3, 0)
    np.testing.assert_array_equal(metrics.confusion(labels, folds, 3), 10)
    assert (folds != fold_numbers(labels, 3, 1)).any()


def test_no_fold_holds_out_everything() -> None:
    labels = np.arange(12) % 3
    assert set(fold_numbers(labels, 3, 0, np.zeros(12)).tolist()) == {0, 1, 2}
    assert len(set(fold_numbers(np.arange(5), 3, 0).tolist())) > 1


# ---------------------------------------------------------------- baselines without a query


def test_majority() -> None:
    assert metrics.majority(np.array([2, 1, 2, 0])) == 2


def test_raw_pixels_read_digits() -> None:
    digits = load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.target))[:600]
    images = np.repeat((digits.images[rows] * 255 / 16).astype(np.uint8)[..., None], 3, axis=3)
    x, y = features(images), digits.target[rows]
    predicted = metrics.raw_pixel_baseline(x[:400], y[:400], x[400:], seed=0)
    assert (predicted == y[400:]).mean() > 0.9
    np.testing.assert_array_equal(predicted, metrics.raw_pixel_baseline(x[:400], y[:400], x[400:], seed=0))
