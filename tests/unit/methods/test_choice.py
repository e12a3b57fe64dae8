"""Which of two judged programs is served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from conformance.methods import Source, problem

from app.contracts import MethodState
from app.methods import choice
from app.methods.choice import BEST, LEADER, RECORD, Judged

TRAIN, VAL = 300, 100


def record(train: int, val: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """So many right of the training and of the validation images; losses to match."""
    right = np.concatenate([np.arange(TRAIN) < train, np.arange(VAL) < val])
    return np.stack([right, np.where(right, 0.1, 2.0)]).astype(float)


def led_by(plain: Judged) -> MethodState:
    best = np.frombuffer(b"the plain program", np.uint8)
    meta = {"best_accuracy": plain.accuracy, "best_loss": plain.loss}
    return MethodState(0, "x", meta, {BEST: best, RECORD: plain.record, LEADER: plain.record}, {})


def candidate(train: int, val: int) -> Judged:
    return Judged(choice.plain(problem(Source())).program, record(train, val), VAL)


def test_few_validation_images_do_not_outvote_the_training_images() -> None:
    """One validation image fewer, thirty training images more."""
    state = choice.following(led_by(candidate(120, 40)), "y", {}, {}, {}, candidate(150, 39))
    np.testing.assert_array_equal(state.arrays[LEADER], record(150, 39))
    assert state.meta["best_accuracy"] == state.metrics["val_accuracy"] == 0.39
    kept = choice.following(state, "z", {}, {}, {}, candidate(140, 42))
    np.testing.assert_array_equal(kept.arrays[LEADER], record(150, 39))


def test_right_answers_and_surety_are_weighed_together() -> None:
    """Two images fewer right of 400 is nothing; the truth surer on every image is something."""
    leader, sure = record(200, 60), candidate(198, 60)
    sure.record[1] -= 0.05
    assert sure.beats(leader)
    doubtful = candidate(202, 60)
    doubtful.record[1] += 0.05
    assert not doubtful.beats(leader)
    assert not candidate(200, 60).beats(leader)
    far = candidate(150, 60)
    far.record[1, :150] -= 0.05
    assert not far.beats(leader)


def test_only_images_on_both_records_count() -> None:
    """A program that the choice has seen half of the training images of is not helped by them."""
    seen = candidate(200, 40)
    seen.record[:, :150] = np.nan  # of the other 150 it has 50 right, the leader none
    assert seen.beats(record(150, 40))
    assert not seen.beats(record(200, 40))


def test_an_older_checkpoint_knows_the_means_over_its_validation_images() -> None:
    old = led_by(candidate(120, 40))
    old = replace(old, arrays={name: array for name, array in old.arrays.items() if name != LEADER})
    assert choice.following(old, "y", {}, {}, {}, candidate(250, 40)).meta["best_accuracy"] == 0.4
    assert LEADER not in choice.following(old, "y", {}, {}, {}, candidate(250, 40)).arrays
    assert choice.following(old, "y", {}, {}, {}, candidate(250, 41)).meta["best_accuracy"] == 0.41
