"""Knobs that say "auto": numbers scaled by d, the classes' images and the budget, settled before a descent.

The constants are those of the defaults, which the benchmark ran at d = 48; the forms follow the estimators.
With n queries in all, cos^2(estimate, gradient) is about 1 / (1 + 2 d (1 + c) / n): only d and n matter, not
how n is split, so directions follow d and give way where money would pay for too few steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.contracts import Ask, MethodState, Scores
from app.methods.descent import GREY, Descent
from app.methods.knobs import CmaEsOptions, DescentOptions
from app.methods.problem import Problem, Shape, Stage
from app.optimisers import CmaEs
from app.reprogramming.program import Program

PER_DIRECTION, MOST_DIRECTIONS = 10, 25  # parameters; the paper's q on ASD is the most
LEAST_STEPS, LEAST_BATCH = 20, 5
GREYS = 2.0  # rms grey levels of a probe whose size is the norm of the whole step
SPHERES = ("bar", "prior")  # their smoothing is such a norm
COUNTS = ("directions", "repeats", "coordinates")
MEASURED = 48, 5  # d and q that the defaults were run at
UNKNOWN_SIDE = 224  # pixels, of a source model that has not said


def dimensions(options: DescentOptions, size: int | None) -> int:
    """d of the visual prompt at a side of `size` pixels."""
    cells, side = options.program.resolution, options.program.size or size or UNKNOWN_SIDE
    return 3 * (side if cells == "pixel" else min(cells, side)) ** 2


def settled(name: str, options: DescentOptions, d: int, train: int, free: int) -> dict[str, Any]:
    """What each knob that says "auto" comes to, at d parameters, `train` images and `free` queries."""
    asked = {knob for knob, value in options if value == "auto" and knob != "covariance"}
    defaults = {knob: type(options).model_fields[knob].default for knob in asked}
    found: dict[str, Any] = {}
    directions = next((getattr(options, knob) for knob in COUNTS if hasattr(options, knob)), MEASURED[1])
    if "batch_size" in asked:
        payable = free // (LEAST_STEPS * (1 + MEASURED[1]))
        found["batch_size"] = min(train, max(LEAST_BATCH, min(defaults["batch_size"], payable)))
    if directions == "auto":
        batch = found.get("batch_size", options.batch_size)
        payable = max(1, free // (2 * LEAST_STEPS * batch))  # two candidates each, at most
        directions = max(1, min(round(d / PER_DIRECTION), MOST_DIRECTIONS, payable))
        found |= {knob: directions for knob in asked if knob in COUNTS}
    if "smoothing" in asked:
        norm = GREYS / GREY * float(np.sqrt(d))
        found["smoothing"] = norm if name in SPHERES else defaults["smoothing"]
    if "step_size" in asked:  # an estimate scaled by d has a norm of about sqrt(d / q) gradients
        usual, share = defaults["step_size"], np.sqrt(directions / d * MEASURED[0] / MEASURED[1])
        found["step_size"] = usual * float(share) if name == "bar" else usual
    if isinstance(options, CmaEsOptions) and options.population is None:
        found["population"] = CmaEs().candidates(d)
    return {knob: round(value, 6) for knob, value in found.items()}


@dataclass(frozen=True)
class Scaled:
    """A descent whose knobs are settled by the problem."""

    name: str
    options: DescentOptions

    @property
    def size(self) -> int | None:
        return self.options.program.size

    def plan(self, shape: Shape) -> list[Stage]:
        """Raises BadRequest as a descent does."""
        return self._at(shape)[0].plan(shape)

    def start(self, problem: Problem) -> MethodState:
        """`meta.settled` says what the knobs came to, where one was left to be settled."""
        descent, found = self._at(problem.shape, problem.size)
        state = descent.start(problem)
        return replace(state, meta={**state.meta, "settled": found}) if found else state

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        return self._at(problem.shape, problem.size)[0].ask(problem, state)

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        return self._at(problem.shape, problem.size)[0].tell(problem, state, scores)

    def program(self, problem: Problem, state: MethodState) -> Program:
        return self._at(problem.shape, problem.size)[0].program(problem, state)

    def _at(self, shape: Shape, size: int | None = None) -> tuple[Descent, dict[str, Any]]:
        d, free = dimensions(self.options, size), max(0, shape.queries - shape.probe)
        found = settled(self.name, self.options, d, shape.train, free)
        return Descent(self.name, self.options.model_copy(update=found)), found
