"""An optimiser's state among the arrays of a method's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import MethodState, OptState

_MEMORY = "memory."


def packed(optimum: OptState) -> dict[str, NDArray[Any]]:
    """As arrays to store."""
    memory = {_MEMORY + name: np.asarray(array) for name, array in optimum.memory.items()}
    return {"x": optimum.x, "clock": np.array([optimum.step, optimum.seed]), **memory}


def unpacked(state: MethodState) -> OptState:
    """The inverse."""
    step, seed = state.arrays["clock"].tolist()
    memory = {n.removeprefix(_MEMORY): a for n, a in state.arrays.items() if n.startswith(_MEMORY)}
    return OptState(step, seed, state.arrays["x"], memory)
