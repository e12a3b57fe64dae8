"""The best known recipe for the budget, so that a user need not choose.

Today that is the race, for every task and source model measured: descending by estimated gradients gained
nothing over the head at 10,000 queries and less than the race at 50,000. The race itself
falls back to unselected views when money is short, and to the plain view with the best head when there is
none. `auto` is a name of its own because the recipe may change while a job's body stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.contracts import Ask, MethodState, Scores
from app.methods.options import SizedOptions
from app.methods.problem import Problem, Shape, Stage
from app.methods.race import Race, RaceOptions
from app.reprogramming.program import Program


class AutoOptions(SizedOptions):
    """The best known recipe for the budget."""


@dataclass(frozen=True)
class Auto:
    """A race with settings of our choice."""

    name: str = "auto"
    options: AutoOptions = field(default_factory=AutoOptions)

    @property
    def size(self) -> int | None:
        return self.options.size

    def plan(self, shape: Shape) -> list[Stage]:
        return self._recipe().plan(shape)

    def start(self, problem: Problem) -> MethodState:
        return self._recipe().start(problem)

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        return self._recipe().ask(problem, state)

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        return self._recipe().tell(problem, state, scores)

    def program(self, problem: Problem, state: MethodState) -> Program:
        return self._recipe().program(problem, state)

    def _recipe(self) -> Race:
        return Race(self.name, RaceOptions(size=self.options.size))
