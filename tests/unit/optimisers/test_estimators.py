"""What each optimiser adds to the common suite: the equations its docstring names."""

from __future__ import annotations

import numpy as np
import pytest
from cmaes import CMA

from app.contracts import OptState
from app.optimisers import Bar, CmaEs, Nes, Prior, Spsa, Zoo


def test_bar_probes_on_a_sphere_of_radius_beta() -> None:
    bar = Bar(directions=8, smoothing=0.3)
    asked = bar.ask(bar.start(np.ones(20), 1))
    assert np.array_equal(asked[0], np.ones(20))
    assert np.allclose(np.linalg.norm(asked[1:] - asked[0], axis=1), 0.3)


def test_bar_step_is_rate_times_estimate_and_the_rate_decays() -> None:
    bar = Bar(directions=2, step_size=0.1, decay=0.5)
    start = bar.start(np.zeros(4), 1)
    for step, rate in enumerate((0.1, 0.05, 0.025)):
        state = OptState(step, 1, start.x)
        losses = bar.ask(state).sum(axis=1)
        assert np.allclose(bar.tell(state, losses).x, -rate * bar.estimate(state, losses))


def test_a_floor_on_bar_is_per_coordinate() -> None:
    assert Bar(smoothing=0.1).floored(0.01, 10_000).smoothing == pytest.approx(1.0)
    assert Bar(smoothing=0.1).floored(0.01, 12) == Bar(smoothing=0.1)


def test_zoo_leaves_other_coordinates_alone() -> None:
    zoo = Zoo(coordinates=3)
    state = zoo.start(np.zeros(10), 4)
    moved = zoo.tell(state, zoo.ask(state).sum(axis=1))
    assert (moved.x != 0).sum() == 3
    assert moved.memory["count"].sum() == 3


def test_newton_lands_on_the_bottom_of_a_bowl_in_one_step() -> None:
    zoo = Zoo(coordinates=4, solver="newton", step_size=1.0)
    state = zoo.start(np.zeros(4), 0)
    losses = ((zoo.ask(state) - [1, -2, 3, 0.5]) ** 2 * [1, 2, 3, 4]).sum(axis=1)
    assert np.allclose(zoo.tell(state, losses).x, [1, -2, 3, 0.5])


def test_newton_follows_the_slope_where_the_curvature_is_negative() -> None:
    zoo = Zoo(coordinates=1, solver="newton", step_size=1.0)
    state = OptState(0, 0, np.ones(1), zoo.start(np.ones(1), 0).memory)
    losses = -(zoo.ask(state) ** 2).sum(axis=1)
    assert np.allclose(zoo.tell(state, losses).x, 1 + 2)


def test_spsa_probes_at_the_look_ahead_point() -> None:
    spsa = Spsa(repeats=3, momentum=0.9)
    state = OptState(4, 0, np.zeros(5), {"momentum": np.full(5, 2.0)})
    assert np.allclose(spsa.ask(state).mean(axis=0), 1.8)


def test_spsa_clips_the_estimate_to_the_root_of_d() -> None:
    spsa = Spsa(step_size=1.0, step_power=0.0, momentum=0.0)
    state = spsa.start(np.zeros(9), 0)
    assert np.linalg.norm(spsa.tell(state, spsa.ask(state).sum(axis=1) * 1e6).x) == pytest.approx(3.0)


def test_spsa_never_probes_below_the_floor() -> None:
    spsa = Spsa(smoothing=0.05).floored(0.01, 4)
    state = OptState(10**9, 0, np.zeros(4), {"momentum": np.zeros(4)})
    assert np.allclose(np.abs(spsa.ask(state)), 0.01)


def test_nes_pairs_are_antithetic() -> None:
    nes = Nes(directions=4)
    asked = nes.ask(nes.start(np.ones(3), 0))
    assert np.allclose(asked[:4] + asked[4:], 2.0)


def test_the_prior_is_learned_from_paid_slopes_and_saves_queries() -> None:
    gradient = np.random.default_rng(0).standard_normal(100)
    guided = Prior(directions=4, step_size=0.0, history=400)
    state = guided.start(np.zeros(100), 1)
    cosines = []
    for _ in range(60):
        losses = guided.ask(state) @ gradient
        estimate = guided.estimate(state, losses)
        cosines.append(estimate @ gradient / np.linalg.norm(estimate) / np.linalg.norm(gradient))
        state = guided.tell(state, losses)
    assert np.mean(cosines[:5]) < 0.3
    assert np.mean(cosines[-5:]) > 0.6


def test_the_prior_is_asked_first_and_the_rest_is_orthogonal_to_it() -> None:
    guided = Prior(directions=5)
    state = guided.start(np.zeros(8), 1)
    state = guided.tell(state, guided.ask(state) @ np.arange(8.0))
    rows = guided.ask(state)
    directions = (rows[1:] - rows[0]) / guided.smoothing
    assert np.allclose(directions[1:] @ directions[0], 0)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)


def test_cma_rebuilt_each_step_is_the_package_run_in_one_piece() -> None:
    ours = CmaEs(smoothing=0.4)
    state = ours.start(np.full(5, 2.0), 3)
    whole = CMA(mean=np.full(5, 2.0), sigma=0.4)
    for _ in range(80):
        population = ours.ask(state)
        losses = (population**2).sum(axis=1)
        whole.tell(list(zip(population, losses.tolist(), strict=True)))
        state = ours.tell(state, losses)
    assert np.allclose(state.x, whole.mean)
    assert (state.x**2).sum() < 1e-3


def test_cma_refuses_what_the_package_only_asserts() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        CmaEs(covariance="separable").start(np.zeros(1), 0)
    with pytest.raises(ValueError, match="population"):
        CmaEs(population=1).start(np.zeros(3), 0)


def test_a_step_out_of_the_finite_numbers_is_refused() -> None:
    bar = Bar(step_size=1e308)
    state = bar.start(np.zeros(3), 0)
    with pytest.raises(ValueError, match="step size"), np.errstate(over="ignore"):
        bar.tell(state, bar.ask(state)[:, 0] * 1e300)
