"""What the optimisers share: randomness, refusals, directions and the step rules."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from app.contracts import Arrays, Losses, OptState, Vector

Floats: TypeAlias = NDArray[np.float64]


class GradientOptimiser(Protocol):
    """An optimiser that steps along an estimated gradient. The estimate can be compared with a known one."""

    def start(self, x: Vector, seed: int) -> OptState: ...

    def ask(self, state: OptState) -> Floats: ...

    def estimate(self, state: OptState, losses: Losses) -> Vector: ...

    def tell(self, state: OptState, losses: Losses) -> OptState: ...


def generator(state: OptState) -> np.random.Generator:
    """The randomness of this step: the same every time it is asked for."""
    return np.random.default_rng([state.seed, state.step])


def vector(x: Vector) -> Vector:
    """A finite (d,) float64 copy of a starting point. Raises ValueError otherwise."""
    start = np.array(x, np.float64)
    if start.ndim != 1 or not len(start) or not np.isfinite(start).all():
        raise ValueError(f"the starting point must be a finite vector, not of shape {start.shape}")
    return start


def checked(losses: Losses, count: int) -> Losses:
    """`count` finite losses. Raises ValueError otherwise: a step from a NaN would poison all later ones."""
    values = np.asarray(losses, np.float64)
    if values.shape != (count,):
        raise ValueError(f"expected {count} losses, one per candidate, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"loss of candidate {int(np.argmin(np.isfinite(values)))} is not finite")
    return values


def sphere(rng: np.random.Generator, count: int, dim: int) -> Floats:
    """(count, dim) directions, uniform on the unit sphere."""
    normal = rng.standard_normal((count, dim))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def following(state: OptState, x: Vector, memory: dict[str, NDArray[Any]] | None = None) -> OptState:
    """The next step's state. Raises ValueError when the step left the finite numbers."""
    if not np.isfinite(x).all():
        raise ValueError("the step is not finite: lower the step size")
    return OptState(state.step + 1, state.seed, x, memory or {})


def adam_memory(dim: int) -> Arrays:
    """Empty moments for `adam`; `count` is kept per coordinate, as coordinate descent needs it."""
    return {"first": np.zeros(dim), "second": np.zeros(dim), "count": np.zeros(dim)}


def adam(memory: Arrays, gradient: Vector, active: NDArray[np.bool_] | None = None) -> tuple[Vector, Arrays]:
    """Adam's step for unit step size and its new memory (Kingma and Ba 2015, algorithm 1).

    Coordinates outside `active` keep their moments and do not move (ZOO, algorithm 2: each coordinate
    counts its own updates).
    """
    on = np.ones(len(gradient), bool) if active is None else active
    first = np.where(on, 0.9 * memory["first"] + 0.1 * gradient, memory["first"])
    second = np.where(on, 0.999 * memory["second"] + 0.001 * gradient**2, memory["second"])
    count = memory["count"] + on
    past = np.maximum(count, 1)
    step = first / (1 - 0.9**past) / (np.sqrt(second / (1 - 0.999**past)) + 1e-8)
    return np.where(on, step, 0.0), {"first": first, "second": second, "count": count}
