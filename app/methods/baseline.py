"""No program: the image as it is, and the best head on its scores. One query per image, once."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.contracts import Ask, MethodState, Scores
from app.methods import choice
from app.methods.options import SizedOptions
from app.methods.problem import Problem, Shape, Stage
from app.reprogramming.program import Program


class BaselineOptions(SizedOptions):
    """No program, best head: what every program has to beat."""


@dataclass(frozen=True)
class Baseline:
    """Everything it needs is paid for by the probe."""

    name: str = "baseline"
    options: BaselineOptions = field(default_factory=BaselineOptions)

    @property
    def size(self) -> int | None:
        return self.options.size

    def plan(self, shape: Shape) -> list[Stage]:
        return [Stage("probe", shape.probe)]

    def start(self, problem: Problem) -> MethodState:
        return choice.opening(problem, "done", {})

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        return None

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        raise ValueError("the baseline asks for nothing")

    def program(self, problem: Problem, state: MethodState) -> Program:
        return choice.best(state)
