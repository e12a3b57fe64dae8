"""Random features: several unselected programs at once, and a head on all their scores (method of last resort
when there is no budget to search, and fully parallel)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import Field

from app.contracts import Ask, MethodState, Scores
from app.methods import choice, finals
from app.methods.candidates import draws
from app.methods.options import SizedOptions
from app.methods.problem import Problem, Shape, Stage
from app.reprogramming.program import Program


class ViewsOptions(SizedOptions):
    """Random programs side by side, one head on the concatenated scores."""

    views: Annotated[
        int | None,
        Field(ge=1, le=16, description="Programs per prediction; null: limits.queries_per_prediction."),
    ] = None


@dataclass(frozen=True)
class Views:
    """The plain view and r - 1 random programs: as many as the limits and the money allow."""

    name: str = "views"
    options: ViewsOptions = field(default_factory=ViewsOptions)

    @property
    def size(self) -> int | None:
        return self.options.size

    def plan(self, shape: Shape) -> list[Stage]:
        views = self._views(shape.queries_per_prediction, shape.queries - shape.probe, shape.probe)
        return [Stage("probe", shape.probe), Stage("views", (views - 1) * shape.probe)]

    def start(self, problem: Problem) -> MethodState:
        views = self._views(problem.queries_per_prediction, problem.free, problem.count)
        return choice.opening(problem, *finals.begin(draws(views, zoomed=False)))

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        return finals.ask(problem, state)

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        return finals.tell(problem, state, scores, np.ones(len(problem.labels["train"]), bool))

    def program(self, problem: Problem, state: MethodState) -> Program:
        return choice.best(state)

    def _views(self, allowed: int, free: int, images: int) -> int:
        wanted = min(allowed, self.options.views or allowed)
        return max(1, min(wanted, 1 + max(0, free) // images))
