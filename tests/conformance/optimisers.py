"""What every optimiser keeps to. A new optimiser subclasses nothing: it joins the table and is run here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from app.contracts import Optimiser, OptState

DIM = 6
SLOPE = np.array([1.0, -2.0, 0.5, 3.0, 0.0, -1.0])


def quadratic(points: np.ndarray) -> np.ndarray:
    """A badly scaled bowl with its bottom at (1, ..., 1)."""
    return ((points - 1.0) ** 2 * np.linspace(0.5, 2.0, points.shape[1])).sum(axis=1)


def same(one: OptState, other: OptState) -> bool:
    arrays = [(one.x, other.x), *((one.memory[k], other.memory[k]) for k in one.memory)]
    return (
        one.step == other.step
        and one.memory.keys() == other.memory.keys()
        and all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in arrays)
    )


class OptimiserSuite:
    """Subclass with a fixture `optimiser`."""

    @pytest.fixture
    def optimiser(self) -> Optimiser:
        raise NotImplementedError

    def run(self, optimiser: Optimiser, state: OptState, steps: int) -> list[OptState]:
        states = [state]
        for _ in range(steps):
            states.append(optimiser.tell(states[-1], quadratic(optimiser.ask(states[-1]))))
        return states

    def test_asking_twice_gives_the_same_candidates(self, optimiser: Optimiser) -> None:
        for state in self.run(optimiser, optimiser.start(np.zeros(DIM), 3), 3):
            asked = optimiser.ask(state)
            assert asked.shape == (optimiser.candidates(DIM), DIM)
            assert asked.tobytes() == optimiser.ask(state).tobytes()

    def test_telling_changes_no_argument(self, optimiser: Optimiser) -> None:
        state = self.run(optimiser, optimiser.start(np.zeros(DIM), 3), 2)[-1]
        before = OptState(
            state.step, state.seed, state.x.copy(), {k: v.copy() for k, v in state.memory.items()}
        )
        losses = quadratic(optimiser.ask(state))
        kept = losses.copy()
        optimiser.tell(state, losses)
        assert same(state, before)
        assert losses.tobytes() == kept.tobytes()

    def test_replays_from_any_step_bit_for_bit(self, optimiser: Optimiser) -> None:
        whole = self.run(optimiser, optimiser.start(np.full(DIM, 0.3), 7), 6)
        for step in range(6):
            saved = whole[step]
            restored = OptState(
                saved.step,
                saved.seed,
                np.frombuffer(saved.x.tobytes()).copy(),
                {k: np.array(v.tolist()).reshape(v.shape) for k, v in saved.memory.items()},
            )
            assert same(self.run(optimiser, restored, 6 - step)[-1], whole[-1])

    def test_another_seed_asks_something_else(self, optimiser: Optimiser) -> None:
        one, other = (optimiser.ask(optimiser.start(np.zeros(DIM), seed)) for seed in (1, 2))
        assert one.tobytes() != other.tobytes()

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    def test_refuses_a_loss_that_is_not_finite(self, optimiser: Optimiser, poison: float) -> None:
        state = optimiser.start(np.zeros(DIM), 0)
        losses = quadratic(optimiser.ask(state))
        losses[-1] = poison
        with pytest.raises(ValueError, match="finite"):
            optimiser.tell(state, losses)

    def test_refuses_a_wrong_number_of_losses(self, optimiser: Optimiser) -> None:
        state = optimiser.start(np.zeros(DIM), 0)
        with pytest.raises(ValueError, match="losses"):
            optimiser.tell(state, np.zeros(len(optimiser.ask(state)) + 1))

    @pytest.mark.parametrize("x", [np.full(3, np.nan), np.zeros((2, 2)), np.zeros(0)])
    def test_refuses_a_bad_start(self, optimiser: Optimiser, x: np.ndarray) -> None:
        with pytest.raises(ValueError, match="starting point"):
            optimiser.start(x, 0)

    def test_descends_a_quadratic(self, optimiser: Optimiser) -> None:
        start = np.full(DIM, -1.0)
        end = self.run(optimiser, optimiser.start(start, 5), 400)[-1].x
        assert quadratic(end[None])[0] < 0.1 * quadratic(start[None])[0]

    def test_floored_probes_are_at_least_that_large(self, optimiser: Optimiser) -> None:
        floored = optimiser.floored(0.5, DIM)
        state = floored.start(np.zeros(DIM), 1)
        asked = floored.ask(state)
        moved = asked[np.abs(asked).max(axis=1) > 0]
        used = np.where(moved == 0, np.nan, moved)
        assert np.sqrt(np.nanmean(used**2)) > 0.4
        assert optimiser.floored(1e-12, DIM) == optimiser or hasattr(optimiser, "least_smoothing")


class GradientSuite(OptimiserSuite):
    """For optimisers that estimate a gradient: the estimate against one that is known."""

    def mean_estimate(
        self, optimiser: Optimiser, function: Callable[[np.ndarray], np.ndarray], state: OptState, draws: int
    ) -> np.ndarray:
        """Mean over seeds; per coordinate over the draws that measured it (coordinate descent skips some)."""
        total, seen = np.zeros(DIM), np.zeros(DIM)
        for seed in range(draws):
            fresh = OptState(state.step, 1000 + seed, state.x, state.memory)
            estimate = optimiser.estimate(fresh, function(optimiser.ask(fresh)))
            total += estimate
            seen += estimate != 0
        return total / np.maximum(seen, 1)

    def test_a_linear_function_gives_its_own_gradient(self, optimiser: Optimiser) -> None:
        """Direction and scale: an estimate a constant times too small fails here."""
        state = optimiser.start(np.full(DIM, 0.2), 0)
        mean = self.mean_estimate(optimiser, lambda points: points @ SLOPE + 4.0, state, 1500)
        assert np.linalg.norm(mean - SLOPE) < 0.15 * np.linalg.norm(SLOPE)

    def test_still_true_after_some_steps(self, optimiser: Optimiser) -> None:
        """With momenta, priors and decays at work."""
        state = optimiser.start(np.full(DIM, 0.2), 0)
        for _ in range(5):
            state = optimiser.tell(state, optimiser.ask(state) @ SLOPE)
        mean = self.mean_estimate(optimiser, lambda points: points @ SLOPE, state, 1500)
        assert np.linalg.norm(mean - SLOPE) < 0.15 * np.linalg.norm(SLOPE)

    def test_a_quadratic_gives_its_gradient_where_it_stands(self, optimiser: Optimiser) -> None:
        x = np.linspace(-1.0, 0.5, DIM)
        truth = 2 * (x - 1.0) * np.linspace(0.5, 2.0, DIM)
        mean = self.mean_estimate(optimiser, quadratic, optimiser.start(x, 0), 1500)
        cosine = mean @ truth / np.linalg.norm(mean) / np.linalg.norm(truth)
        assert cosine > 0.99
        assert np.linalg.norm(mean) == pytest.approx(np.linalg.norm(truth), rel=0.15)
