"""Descending methods: pace, mini-batches, mappings and the check that probes survive rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conformance.methods import LABELS, TRAIN, VAL, Source, answer, play, problem

from app.errors import BadRequest
from app.methods import Shape, make
from app.methods.descent import Descent
from app.methods.knobs import BarOptions
from app.reprogramming.transform import parameters


def bar(**options: object) -> Descent:
    return Descent("bar", BarOptions.model_validate(options))


def test_a_step_asks_all_candidates_under_one_mini_batch() -> None:
    source = Source()
    task = problem(source)
    method = bar(directions=3, batch_size=7)
    state = next(state for state in play(method, task, source) if state.phase == "step")
    wish = method.ask(task, state)
    assert wish is not None
    assert (len(wish.views), len(wish.rows), wish.split) == (4, 7, "train")
    assert len(set(wish.rows.tolist())) == 7
    assert {parameters(view) for view in wish.views} == {48}


def test_the_start_and_the_end_are_judged_on_all_validation_images() -> None:
    source = Source()
    task = problem(source)
    looks = [s for s in play(bar(), task, source) if "candidate_val_accuracy" in s.metrics]
    assert len(looks) >= 2
    assert looks[-1].phase == "done"
    stages = {s.name: s.queries for s in bar().plan(Shape(TRAIN, VAL, 3, LABELS, task.queries, 2))}
    assert stages["validation"] == VAL * len(looks)


def test_a_linear_mapping_is_made_again_before_each_judgement() -> None:
    source = Source()
    task = problem(source)
    method = bar(mapping={"type": "linear"}, batch_size=5, directions=1)
    heads = {
        state.arrays["mapping.weights"].tobytes()
        for state in play(method, task, source)
        if state.phase == "validate"
    }
    assert len(heads) >= 2


def test_a_linear_mapping_scores_only_rows_it_was_not_fitted_on() -> None:
    """Fitted on pure noise, a head's loss on its own rows would look good; on the other half it is chance."""
    source = Source()
    task = problem(source, queries=3000)
    method = bar(mapping={"type": "linear"}, loss={"type": "cross_entropy"}, batch_size=60)
    rng = np.random.default_rng(0)
    state, losses = method.start(task), []
    while (wish := method.ask(task, state)) is not None:
        scores = rng.dirichlet(np.ones(LABELS), (len(wish.views), len(wish.rows)))
        state = method.tell(task, state, scores)
        losses += [state.metrics["train_loss"]] if "train_loss" in state.metrics else []
    assert np.mean(losses) > np.log(3)


def test_probes_that_rounding_swallows_are_reported() -> None:
    source = Source()
    task = problem(source)
    lost = bar(program={"resolution": "pixel"}, smoothing=1e-6)
    *_, last = play(lost, task, source)
    assert last.meta["error"] == "probes_lost_in_rounding"
    *_, fine = play(bar(), task, source)
    assert fine.meta["error"] is None


def test_smoothing_is_raised_to_a_grey_level_in_a_coarse_prompt() -> None:
    source = Source()
    task = problem(source)
    steps = [s for s in play(bar(smoothing=1e-9), task, source) if "distinct_fraction" in s.metrics]
    assert min(s.metrics["distinct_fraction"] for s in steps) == 1.0


def test_too_wide_a_mapping_is_refused_before_anything_is_paid() -> None:
    with pytest.raises(BadRequest) as refused:
        make("bar", {"mapping": {"type": "frequency"}}).plan(Shape(100, 20, 10, 5, 1000, 1))
    assert refused.value.code == "mapping_too_wide"


def test_auto_mapping_is_linear_where_classes_outnumber_the_labels() -> None:
    make("bar", {}).plan(Shape(100, 20, 10, 5, 1000, 1))
    assert BarOptions().mapping.kind(5, 10) == "linear"
    assert BarOptions().mapping.kind(1000, 10) == "frequency"
    assert BarOptions().mapping.width(1000, 10) == 10
    assert BarOptions().mapping.width(1000, 2) == 1


def test_descent_brings_the_loss_down_where_a_gradient_can() -> None:
    """A source whose first score follows the brightness of the frame; the class is one label."""
    source = Source()
    task = problem(source, queries=6000)
    task = replace(task, labels={s: np.zeros_like(task.labels[s]) for s in task.labels})
    method = bar(mapping={"type": "random"}, loss={"type": "cross_entropy"}, directions=10, step_size=0.1)
    state, losses = method.start(task), []
    while (wish := method.ask(task, state)) is not None:
        scores = answer(source, task, wish)
        state = method.tell(task, state, scores)
        losses += [state.metrics["train_loss"]] if "train_loss" in state.metrics else []
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
