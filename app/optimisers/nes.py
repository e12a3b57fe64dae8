"""Natural evolution strategy with antithetic pairs (Ilyas et al. 2018, algorithm 1; Salimans et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.contracts import Losses, OptState, Vector
from app.optimisers.base import Floats, adam, adam_memory, checked, following, generator, vector


@dataclass(frozen=True)
class Nes:
    """Gradient of the gaussian-smoothed loss, followed by Adam.

        g = (1/q) sum_j [f(x + sigma u_j) - f(x - sigma u_j)] / 2 sigma  u_j,    u_j ~ N(0, I)

    Costs 2 candidates per direction.
    """

    directions: int = 5  # q
    smoothing: float = 0.05  # sigma, per coordinate
    step_size: float = 0.02

    def floored(self, rms: float, dim: int) -> Nes:
        """This optimiser with a probing step of at least `rms` per coordinate."""
        return replace(self, smoothing=max(self.smoothing, rms))

    def candidates(self, dim: int) -> int:
        """Rows of `ask`."""
        return 2 * self.directions

    def start(self, x: Vector, seed: int) -> OptState:
        begin = vector(x)
        return OptState(0, seed, begin, adam_memory(len(begin)))

    def ask(self, state: OptState) -> Floats:
        """(2q, d): all plus rows, then all minus rows."""
        steps = self.smoothing * self._directions(state)
        return np.vstack([state.x + steps, state.x - steps])

    def estimate(self, state: OptState, losses: Losses) -> Vector:
        """The gradient estimate g, (d,)."""
        values = checked(losses, 2 * self.directions)
        slopes = (values[: self.directions] - values[self.directions :]) / (2 * self.smoothing)
        return slopes @ self._directions(state) / self.directions

    def tell(self, state: OptState, losses: Losses) -> OptState:
        step, memory = adam(state.memory, self.estimate(state, losses))
        return following(state, state.x - self.step_size * step, memory)

    def _directions(self, state: OptState) -> Floats:
        return generator(state).standard_normal((self.directions, len(state.x)))
