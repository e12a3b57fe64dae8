"""The best known recipe for the budget, so that a user need not choose.

Race programs; choose forward those that complement each other, as many as a prediction may ask; move the
numbers of the winners by CMA-ES with what is left. At every judgement take the best of the logistic head,
the RBF head and, where it is asked for (`fused`), a head that reads compact pixel features beside the
scores. Each stage has to be better than the last to be kept, so the result is never below the head on the
plain image's scores; where money is short it ends after the stage that is paid for. Descending by estimated
gradients is left out: it gained nothing over the head at 10,000 queries, and less than the race at 50,000.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from app.contracts import Ask, MethodState, Scores
from app.methods import choice, finals, refine
from app.methods.options import SizedOptions
from app.methods.problem import Problem, Shape, Stage
from app.methods.race import Race, RaceOptions
from app.reprogramming.program import Program

REFINE_SHARE = 0.3  # of the budget, where the user wants a refinement whatever is left


class AutoOptions(SizedOptions):
    """The best known recipe for the budget."""

    fused: Annotated[
        Literal["auto"] | bool,
        Field(description="Head on scores and compact pixel features; auto: where it is surely better."),
    ] = False
    refine: Annotated[
        Literal["auto"] | bool,
        Field(description="Move the winners' numbers by CMA-ES; auto: with money the race leaves over."),
    ] = "auto"


@dataclass(frozen=True)
class Auto:
    """A race, then perhaps a refinement, with the head that suits."""

    name: str = "auto"
    options: AutoOptions = field(default_factory=AutoOptions)

    @property
    def size(self) -> int | None:
        return self.options.size

    def plan(self, shape: Shape) -> list[Stage]:
        """The race's stages, then the refinement's."""
        race, budget = self._shared(shape)
        return [*race, *budget.stages()]

    def start(self, problem: Problem) -> MethodState:
        return self._race.start(self._racing(problem))

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        if state.phase in refine.PHASES:
            return refine.ask(problem, state)
        return self._race.ask(self._racing(problem), state)

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        if state.phase in refine.PHASES:
            return refine.tell(problem, state, scores, self.options.fused)
        told = self._race.tell(self._racing(problem), state, scores)
        _, budget = self._shared(problem.shape)
        if told.phase == finals.DONE and budget.views:
            return refine.begin(problem, told, budget)
        return told

    def program(self, problem: Problem, state: MethodState) -> Program:
        return choice.best(state)

    @property
    def _race(self) -> Race:
        return Race(self.name, RaceOptions(size=self.options.size), self.options.fused)

    def _racing(self, problem: Problem) -> Problem:
        return problem.within(self._kept(problem.shape))

    def _kept(self, shape: Shape) -> int:
        """Queries the race may use: all, unless a refinement is wanted whatever is left."""
        if self.options.refine is not True:
            return shape.queries
        wanted = refine.budget(int(REFINE_SHARE * shape.queries), 1, shape.train, shape.val, 1)
        return shape.queries - wanted.queries

    def _shared(self, shape: Shape) -> tuple[list[Stage], refine.Budget]:
        """The race's plan, and what it leaves for the refinement."""
        kept = self._kept(shape)
        race = self._race.plan(shape.within(kept))
        left = shape.queries - max(shape.probe, sum(stage.queries for stage in race))
        if self.options.refine is False:
            left = 0
        least = 1 if self.options.refine is True else refine.LEAST_GENERATIONS
        return race, refine.budget(left, shape.queries_per_prediction, shape.train, shape.val, least)
