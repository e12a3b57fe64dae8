"""Prior-guided random gradient-free descent (after P-RGF: Cheng et al., NeurIPS 2019)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.contracts import Losses, OptState, Vector
from app.optimisers.base import Floats, adam, adam_memory, checked, following, generator, sphere, vector


@dataclass(frozen=True)
class Prior:
    """One direction is spent on a surrogate's gradient v, the others on what is orthogonal to it.

        g = D_v v + (d-1)/(q-1) sum_j D_{u_j} u_j,    u_j uniform on the unit sphere orthogonal to v

    where D_u = [f(x + beta u) - f(x)] / beta. The split keeps g unbiased however bad the prior is (P-RGF's
    equation 11 weights the two parts by the prior's cosine, which has to be known). The surrogate is linear:
    ridge regression of the slopes of past steps, already paid for, on their directions. Costs q + 1
    candidates per step; the first is x itself.
    """

    directions: int = 5  # q, the prior's included
    smoothing: float = 0.1  # beta: length of the whole probing step
    step_size: float = 0.02
    history: int = 64  # slopes the surrogate is fitted on

    def floored(self, rms: float, dim: int) -> Prior:
        """This optimiser with a probing step of at least `rms` per coordinate (root mean square)."""
        return replace(self, smoothing=max(self.smoothing, rms * float(np.sqrt(dim))))

    def candidates(self, dim: int) -> int:
        """Rows of `ask`."""
        return self.directions + 1

    def start(self, x: Vector, seed: int) -> OptState:
        begin = vector(x)
        empty = {"seen": np.zeros((0, len(begin))), "slopes": np.zeros(0)}
        return OptState(0, seed, begin, adam_memory(len(begin)) | empty)

    def ask(self, state: OptState) -> Floats:
        """(q + 1, d): the base point, then one row per direction, the prior's first."""
        return np.vstack([state.x, state.x + self.smoothing * self._directions(state)])

    def estimate(self, state: OptState, losses: Losses) -> Vector:
        """The gradient estimate g, (d,)."""
        slopes, directions, dim = self._slopes(losses), self._directions(state), len(state.x)
        if self._prior(state) is None:
            return dim * slopes @ directions / self.directions
        free = (dim - 1) / max(1, self.directions - 1)
        return slopes[0] * directions[0] + free * slopes[1:] @ directions[1:]

    def tell(self, state: OptState, losses: Losses) -> OptState:
        step, memory = adam(state.memory, self.estimate(state, losses))
        seen = np.vstack([state.memory["seen"], self._directions(state)])[-self.history :]
        slopes = np.append(state.memory["slopes"], self._slopes(losses))[-self.history :]
        return following(state, state.x - self.step_size * step, memory | {"seen": seen, "slopes": slopes})

    def _slopes(self, losses: Losses) -> Floats:
        values = checked(losses, self.directions + 1)
        return (values[1:] - values[0]) / self.smoothing

    def _directions(self, state: OptState) -> Floats:
        dim, rng, prior = len(state.x), generator(state), self._prior(state)
        if prior is None:
            return sphere(rng, self.directions, dim)
        normal = rng.standard_normal((self.directions - 1, dim))
        free = normal - np.outer(normal @ prior, prior)
        return np.vstack([prior, free / np.linalg.norm(free, axis=1, keepdims=True)])

    def _prior(self, state: OptState) -> Vector | None:
        """The surrogate's unit gradient; None before there is one, or where nothing is orthogonal to it."""
        seen, slopes, dim = state.memory["seen"], state.memory["slopes"], len(state.x)
        if self.directions < 2 or dim < 2 or not len(slopes):
            return None
        dual = np.linalg.solve(seen @ seen.T + np.eye(len(seen)), slopes)
        gradient = seen.T @ dual
        norm = float(np.linalg.norm(gradient))
        return np.asarray(gradient / norm, np.float64) if norm > 1e-12 else None
