"""Simultaneous perturbation with gradient correction (SPSA-GC of BlackVIP: Oh et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.contracts import Losses, OptState, Vector
from app.optimisers.base import Floats, checked, following, generator, vector


@dataclass(frozen=True)
class Spsa:
    """Two-sided estimate along random signs, averaged over repeats, with Nesterov momentum.

        g_t = [f(y + c_t D) - f(y - c_t D)] / 2 c_t  D^-1,    y = x_t + beta m_t     (BlackVIP, equation 7)
        m_{t+1} = beta m_t - a_t g_t,    x_{t+1} = x_t + m_{t+1}                      (equation 8)

    a_t = a / (t + o)^alpha and c_t = c / t^gamma (Spall 1998). The estimate is clipped to norm sqrt(d)
    (ZIP: Park et al., ICLR 2025). Costs 2 candidates per repeat.
    """

    repeats: int = 5  # r
    smoothing: float = 0.05  # c, per coordinate
    step_size: float = 0.05  # a
    momentum: float = 0.9  # beta
    stability: float = 1.0  # o
    step_power: float = 0.4  # alpha
    smoothing_power: float = 0.2  # gamma
    least_smoothing: float = 0.0  # c_t never falls below

    def floored(self, rms: float, dim: int) -> Spsa:
        """This optimiser with a probing step of at least `rms` per coordinate, at all times."""
        return replace(self, least_smoothing=max(self.least_smoothing, rms))

    def candidates(self, dim: int) -> int:
        """Rows of `ask`."""
        return 2 * self.repeats

    def start(self, x: Vector, seed: int) -> OptState:
        begin = vector(x)
        return OptState(0, seed, begin, {"momentum": np.zeros(len(begin))})

    def ask(self, state: OptState) -> Floats:
        """(2r, d): all plus rows, then all minus rows, around the look-ahead point."""
        ahead = state.x + self.momentum * state.memory["momentum"]
        steps = self._smoothing(state) * self._signs(state)
        return np.vstack([ahead + steps, ahead - steps])

    def estimate(self, state: OptState, losses: Losses) -> Vector:
        """The gradient estimate at the look-ahead point, before clipping, (d,)."""
        values = checked(losses, 2 * self.repeats)
        slopes = (values[: self.repeats] - values[self.repeats :]) / (2 * self._smoothing(state))
        return slopes @ self._signs(state) / self.repeats  # for signs, D^-1 is D

    def tell(self, state: OptState, losses: Losses) -> OptState:
        gradient = self.estimate(state, losses)
        norm, limit = float(np.linalg.norm(gradient)), float(np.sqrt(len(state.x)))
        if norm > limit:
            gradient = gradient * (limit / norm)
        rate = self.step_size / (state.step + 1 + self.stability) ** self.step_power
        momentum = self.momentum * state.memory["momentum"] - rate * gradient
        return following(state, state.x + momentum, {"momentum": momentum})

    def _smoothing(self, state: OptState) -> float:
        return max(self.least_smoothing, self.smoothing / (state.step + 1) ** self.smoothing_power)

    def _signs(self, state: OptState) -> Floats:
        return generator(state).choice([-1.0, 1.0], size=(self.repeats, len(state.x)))
