"""Zeroth-order coordinate descent (ZOO: Chen et al. 2017, algorithms 2 and 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.contracts import Losses, OptState, Vector
from app.optimisers.base import Floats, adam, adam_memory, checked, following, generator, vector


@dataclass(frozen=True)
class Zoo:
    """Symmetric differences on a few coordinates per step, followed by Adam or Newton on those coordinates.

        g_i = [f(x + h e_i) - f(x - h e_i)] / 2h              (equation 6)
        h_i = [f(x + h e_i) - 2 f(x) + f(x - h e_i)] / h^2    (equation 7)

    Costs 2 candidates per coordinate; Newton asks the base point as well, once per step. Only sensible in a
    low-dimensional program.
    """

    coordinates: int = 4  # moved in one step
    smoothing: float = 0.05  # h; the caller floors it to a grey level
    step_size: float = 0.05
    solver: Literal["adam", "newton"] = "adam"

    def floored(self, rms: float, dim: int) -> Zoo:
        """This optimiser with a probing step of at least `rms` on the coordinate it moves."""
        return replace(self, smoothing=max(self.smoothing, rms))

    def candidates(self, dim: int) -> int:
        """Rows of `ask`."""
        return 2 * min(self.coordinates, dim) + (self.solver == "newton")

    def start(self, x: Vector, seed: int) -> OptState:
        begin = vector(x)
        return OptState(0, seed, begin, adam_memory(len(begin)))

    def ask(self, state: OptState) -> Floats:
        """(2c, d): all plus rows, then all minus rows; then the base point for Newton."""
        steps = self.smoothing * np.eye(len(state.x))[self._picked(state)]
        base = state.x[None] if self.solver == "newton" else state.x[None][:0]
        return np.vstack([state.x + steps, state.x - steps, base])

    def estimate(self, state: OptState, losses: Losses) -> Vector:
        """(d,): the partial derivatives of the coordinates picked, zero elsewhere."""
        values = checked(losses, self.candidates(len(state.x)))
        picked = self._picked(state)
        plus, minus = values[: len(picked)], values[len(picked) : 2 * len(picked)]
        gradient = np.zeros(len(state.x))
        gradient[picked] = (plus - minus) / (2 * self.smoothing)
        return gradient

    def tell(self, state: OptState, losses: Losses) -> OptState:
        gradient = self.estimate(state, losses)
        if self.solver == "newton":
            step = gradient / self._curvature(state, losses)
            return following(state, state.x - self.step_size * step, state.memory)
        active = np.isin(np.arange(len(state.x)), self._picked(state))
        step, memory = adam(state.memory, gradient, active)
        return following(state, state.x - self.step_size * step, memory)

    def _curvature(self, state: OptState, losses: Losses) -> Vector:
        """Second derivatives of the coordinates picked; 1 where not positive (algorithm 3) and elsewhere."""
        picked = self._picked(state)
        plus, minus, base = losses[: len(picked)], losses[len(picked) : -1], losses[-1]
        curvature = np.ones(len(state.x))
        second = (plus - 2 * base + minus) / self.smoothing**2
        curvature[picked] = np.where(second > 0, np.maximum(second, 1e-8), 1.0)
        return curvature

    def _picked(self, state: OptState) -> NDArray[np.intp]:
        dim = len(state.x)
        return np.sort(generator(state).choice(dim, min(self.coordinates, dim), replace=False))
