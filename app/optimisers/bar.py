"""The estimator of BAR (Tsai, Chen and Ho 2020, equation 5; AutoZOOM, Tu et al. 2019, equation 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.contracts import Losses, OptState, Vector
from app.optimisers.base import Floats, checked, following, generator, sphere, vector


@dataclass(frozen=True)
class Bar:
    """One-sided averaged random gradient-free estimate, followed by plain gradient descent.

        g = (1/q) sum_j b [f(W + beta U_j) - f(W)] / beta U_j,    U_j uniform on the unit sphere of R^d

    with b = d, which makes g unbiased for the smoothed loss. The step size decays exponentially.
    Costs q + 1 candidates per step; the first is W itself.
    """

    directions: int = 1  # q
    smoothing: float = 0.1  # beta: length of the whole probing step, not of one coordinate
    step_size: float = 0.05  # eta
    decay: float = 0.99  # factor on eta per step

    def floored(self, rms: float, dim: int) -> Bar:
        """This optimiser with a probing step of at least `rms` per coordinate (root mean square)."""
        return replace(self, smoothing=max(self.smoothing, rms * float(np.sqrt(dim))))

    def candidates(self, dim: int) -> int:
        """Rows of `ask`."""
        return self.directions + 1

    def start(self, x: Vector, seed: int) -> OptState:
        return OptState(0, seed, vector(x))

    def ask(self, state: OptState) -> Floats:
        """(q + 1, d): the base point, then one row per direction."""
        return np.vstack([state.x, state.x + self.smoothing * self._directions(state)])

    def estimate(self, state: OptState, losses: Losses) -> Vector:
        """The gradient estimate g, (d,)."""
        values = checked(losses, self.directions + 1)
        slopes = (values[1:] - values[0]) / self.smoothing
        return len(state.x) * slopes @ self._directions(state) / self.directions

    def tell(self, state: OptState, losses: Losses) -> OptState:
        rate = self.step_size * self.decay**state.step
        return following(state, state.x - rate * self.estimate(state, losses))

    def _directions(self, state: OptState) -> Floats:
        return sphere(generator(state), self.directions, len(state.x))
