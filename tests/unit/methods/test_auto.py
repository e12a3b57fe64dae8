"""What `auto` composes: race, fused head, refinement."""

from __future__ import annotations

import numpy as np
import pytest
from conformance.methods import CLASSES, LABELS, TRAIN, VAL, Source, accuracy, drawn, play, problem
from threadpoolctl import threadpool_limits

from app.methods import Shape, make, refine
from app.methods.candidates import candidates
from app.methods.state import from_bytes, to_bytes
from app.reprogramming import program as programs
from app.reprogramming.transform import render_many


def test_a_refinement_stays_in_its_budget_and_replays() -> None:
    method, source = make("auto", {"fused": False, "refine": True}), Source()
    task = problem(source, queries=8000, views=2)
    with threadpool_limits(1, "blas"):
        states = list(play(method, task, source))
        moved = [state for state in states if state.phase == refine.MOVE]
        *_, again = play(method, task, source, from_bytes(to_bytes(moved[len(moved) // 2])))
    assert len(moved) > 1
    assert states[-1].phase == refine.DONE
    planned = sum(s.queries for s in method.plan(Shape(TRAIN, VAL, CLASSES, LABELS, 8000, 2)))
    assert len(source.seen) <= planned <= 8000
    told = [state.metrics["val_accuracy"] for state in states if "val_accuracy" in state.metrics]
    assert told == sorted(told)
    assert to_bytes(again) == to_bytes(states[-1])


def test_money_that_a_race_leaves_over_is_for_refinement_unless_unwanted() -> None:
    rich = Shape(TRAIN, VAL, CLASSES, LABELS, 60_000, 2)
    assert make("auto", {}).plan(rich)[-1].name == "refine"
    assert "refine" not in {stage.name for stage in make("auto", {"refine": False}).plan(rich)}
    few = Shape(TRAIN, VAL, CLASSES, LABELS, 3000, 2)
    assert "refine" not in {stage.name for stage in make("auto", {}).plan(few)}


@pytest.mark.parametrize("fused", [True, "auto", False])
def test_a_fused_head_is_taken_where_pixels_help(fused: object) -> None:
    """The blobs are plain to see in the pixels, and blurred in five scores."""
    source = Source()
    task = problem(source, queries=TRAIN + VAL, views=1)
    method = make("auto", {"fused": fused})
    *_, last = play(method, task, source)
    program = method.program(task, last)
    assert program.pixel_features is (fused is not False)
    images, labels = drawn(60, 9)
    again = programs.from_bytes(programs.to_bytes(program))
    answered = source(render_many(again.views, images)).reshape(1, len(images), -1)
    right = (programs.score(again, answered, images).argmax(axis=1) == labels).mean()
    assert bool(right > 0.95) is program.pixel_features
    assert accuracy(program, source) == pytest.approx(right, abs=0.1)


def test_a_neighbour_in_no_direction_is_the_view_itself() -> None:
    for view in candidates(32, 3, [[0], [1], [5]]):
        still = refine.vary(view, np.zeros(refine.DIMENSIONS))
        assert still.to_config() == {**view.to_config(), "amplitude": still.amplitude}
        shown = render_many([view, still], np.full((1, 8, 8, 3), 90, np.uint8))
        assert np.array_equal(shown[0], shown[1])
