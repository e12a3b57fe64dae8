"""Race programs instead of descending: draw many, keep those whose scores tell the classes apart.

Successive halving (Jamieson and Talwalkar 2016) on a shared subset of training images, then greedy forward
selection of views that complement each other. For one or two views, half of the candidates are neighbours of
the best of those drawn at random; more views gain more from candidates that are unlike. The criterion is
closed-form leave-one-out ridge on log-scores: no step size, no gradient, and every answer is used again for
the final head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from app.contracts import Ask, Labels, MethodState, Scores
from app.methods import choice, finals
from app.methods.candidates import candidates, draws
from app.methods.options import SizedOptions
from app.methods.problem import Problem, Shape, Stage
from app.reprogramming.program import Program
from app.reprogramming.ridge import loo_gram, loo_ridge

FIRST, NEAR, SECOND = "first round", "neighbours", "second round"
KEEP = 3  # one candidate in so many reaches the second round
FEW_VIEWS = 2  # up to here neighbours are drawn
PARENTS = 6  # at least so many candidates have neighbours drawn
MANY_LABELS = 20  # from here on a few candidates do: each view says enough
IMAGES, MORE_IMAGES = 60, 100  # training images of the first round; of the second 150, the others judge
FEW_CANDIDATES, MOST_CANDIDATES = 12, 200
PER_VIEW = 4  # and so few candidates per view, of which the second round keeps more than are chosen
BLOCK = 1000  # queries between checkpoints
HEARD = "compared"  # the array of what a round has heard so far; of a longer round all are asked at its end
MOST_JUDGED = 1_000_000  # numbers of a block of candidates that are judged together


class RaceOptions(SizedOptions):
    """Program search: random programs race on few images, the best that complement each other stay."""

    candidates: Annotated[
        int | None,
        Field(ge=2, le=MOST_CANDIDATES, description="Programs drawn; null: by the budget."),
    ] = None
    images: Annotated[
        int | None,
        Field(
            ge=20,
            le=2000,
            description="Training images a candidate is first scored on; null: 60, or 100 with "
            "many source labels and money left over.",
        ),
    ] = None


@dataclass(frozen=True)
class Rounds:
    """How a race shares out its queries. Without rows there is no race: the views are the first drawn."""

    candidates: int
    first: int  # training images of the first round
    kept: int
    second: int  # of the second
    views: int  # of the finished program

    @property
    def drawn(self) -> int:
        """Candidates drawn at random; the others are neighbours."""
        return -(-self.candidates // 2) if self.views <= FEW_VIEWS else self.candidates

    def stages(self, shape: Shape) -> list[Stage]:
        """The plan, in order of spending."""
        rest = self.views * (shape.probe - self.second)
        if not self.second:
            rest -= shape.probe  # the plain view is among them, and paid
        stages = [
            Stage("probe", shape.probe),
            Stage(FIRST, self.drawn * self.first),
            Stage(NEAR, (self.candidates - self.drawn) * self.first),
            Stage(SECOND, self.kept * (self.second - self.first)),
            Stage("views", rest),
        ]
        return [stage for stage in stages if stage.queries]


@dataclass(frozen=True)
class Race:
    """Draw, halve, select forward, judge."""

    name: str = "race"
    options: RaceOptions = field(default_factory=RaceOptions)
    fused: choice.Fused = False

    @property
    def size(self) -> int | None:
        return self.options.size

    def plan(self, shape: Shape) -> list[Stage]:
        return self.rounds(shape).stages(shape)

    def rounds(self, shape: Shape) -> Rounds:
        """The most views that leave candidates to choose from; unselected views when money is too short."""
        free = max(0, shape.queries - shape.probe)
        unselected = min(shape.queries_per_prediction, 1 + free // shape.probe)
        for views in range(shape.queries_per_prediction, 0, -1):
            raced = self._raced(shape, free, views)
            if raced is not None and 4 * views >= 3 * unselected:
                return raced
        return Rounds(unselected, 0, unselected, 0, unselected)

    def _raced(self, shape: Shape, free: int, views: int) -> Rounds | None:
        many = shape.source_labels is not None and shape.source_labels >= MANY_LABELS
        few = max(FEW_CANDIDATES, PER_VIEW * views)
        most = self.options.candidates or (few if many else MOST_CANDIDATES)
        sizes = [(count, IMAGES) for count in range(most, max(2 * views, 4) - 1, -1)]
        if many and sizes:  # what is left when these few are paid for goes into more of them, on more images
            ample = self.options.candidates or 2 * few
            sizes = [*((count, MORE_IMAGES) for count in range(ample, most - 1, -1)), *sizes]
        for count, images in sizes:
            first = min(shape.train, max(self.options.images or images, 5 * shape.target_labels))
            second = min(shape.train, first * 5 // 2 if images == IMAGES else first * 3 // 2)
            rounds = Rounds(count, first, max(views, -(-count // KEEP)), second, views)
            if sum(stage.queries for stage in rounds.stages(shape)[1:]) <= free:
                return rounds
        return None

    def start(self, problem: Problem) -> MethodState:
        rounds = self.rounds(problem.shape)
        if rounds.second:
            return choice.opening(
                problem,
                FIRST,
                {"running": draws(rounds.drawn, problem.detailed), "paid": 0},
                fused=self.fused,
            )
        return choice.opening(problem, *finals.begin(draws(rounds.views, False)), fused=self.fused)

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        if state.phase not in (FIRST, NEAR, SECOND):
            return finals.ask(problem, state)
        rows = self._rows(problem, state.phase)
        paths = self._next(state, len(rows))
        return Ask(candidates(problem.size, problem.seed, paths), rows, "train", "round")

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        if state.phase not in (FIRST, NEAR, SECOND):
            unseen = np.ones(len(problem.labels["train"]), bool)
            unseen[self._rows(problem, SECOND)] = False
            return finals.tell(problem, state, scores, unseen, self.fused)
        running, paid, rows = state.meta["running"], state.meta["paid"], self._rows(problem, state.phase)
        now, known = _heard(problem, scores), state.arrays.get(HEARD)
        if known is not None and known.shape[1] != len(rows):
            known = None  # of a release that raced on fewer images: everyone is asked again
        heard = now if known is None else np.concatenate([known, now])
        kept = {HEARD: heard} if heard.size <= finals.MOST_KEPT and (known is not None or not paid) else {}
        if len(heard) < len(running):  # paid for one block more
            metrics = _Heat(problem, now, rows).metrics()
            return choice.following(state, state.phase, {"paid": paid + len(scores)}, kept, metrics)
        heat = _Heat(problem, heard, rows)
        phase, meta = self._after(self.rounds(problem.shape), state.phase, running, heat)
        return choice.following(state, phase, meta, kept if phase == NEAR else {}, heat.metrics())

    def _after(
        self, rounds: Rounds, phase: str, running: list[list[int]], heat: _Heat
    ) -> tuple[str, dict[str, Any]]:
        """The phase that follows a finished one, and what its meta says."""
        if phase == SECOND:
            return finals.begin([running[i] for i in heat.forward(rounds.views)])
        if phase == FIRST and rounds.drawn < rounds.candidates:
            parents = [running[i] for i in heat.best(rounds.views, max(rounds.views, PARENTS))]
            near = [[*parents[i % len(parents)], i] for i in range(rounds.candidates - rounds.drawn)]
            return NEAR, {"running": running + near, "paid": len(running)}
        return SECOND, {"running": [running[i] for i in heat.best(rounds.views, rounds.kept)], "paid": 0}

    def program(self, problem: Problem, state: MethodState) -> Program:
        return choice.best(state)

    def _rows(self, problem: Problem, phase: str) -> NDArray[np.intp]:
        """The subset all candidates share; the second round's holds the first's."""
        rounds = self.rounds(problem.shape)
        order = spread(problem.labels["train"], problem.seed)
        return np.sort(order[: rounds.second if phase == SECOND else rounds.first])

    def _next(self, state: MethodState, rows: int) -> list[list[int]]:
        """The next block to pay for; once all are paid for, but not at hand, everyone: that is free."""
        running, paid, block = state.meta["running"], state.meta["paid"], max(1, BLOCK // rows)
        return running[paid : paid + block] if paid < len(running) else running


def _heard(problem: Problem, scores: Scores) -> NDArray[np.float64]:
    """What scores (V, n, K) have to say in a race: the log-scores of each view (V, n, K), or the smaller Gram
    matrices of these, centred (V, n, n). An image without an answer counts as all labels censored, which
    speaks against the candidate."""
    views, n, labels = scores.shape
    columns = choice.columns(problem, scores).reshape(n, views, labels).transpose(1, 0, 2)
    return _gram(columns) if labels >= n else np.ascontiguousarray(columns)


def _gram(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = np.ascontiguousarray(columns)
    centred = columns - columns.mean(axis=1, keepdims=True)
    return np.stack([view @ view.T for view in centred])


@dataclass(frozen=True, eq=False)
class _Heat:
    """What was `_heard` of the candidates on the rows of one round."""

    problem: Problem
    heard: NDArray[np.float64]
    rows: NDArray[np.intp]

    @cached_property
    def alone(self) -> _Errors:
        """Every candidate by itself."""
        return self._judge([])

    def metrics(self) -> dict[str, float]:
        """How the leader does."""
        leader = int(self.alone.loss.argmin())
        return {
            "train_loss": float(self.alone.loss[leader]),
            "loo_accuracy": float(self.alone.accuracy[leader]),
            "loo_images": len(self.rows),
        }

    def best(self, views: int, count: int) -> list[int]:
        """`count` candidates: those that go best together, then those that do best alone."""
        chosen = self.forward(views)
        ranked: list[int] = np.argsort(self.alone.loss, kind="stable").tolist()
        return (chosen + [i for i in ranked if i not in chosen])[:count]

    def forward(self, views: int) -> list[int]:
        """Greedy forward selection by the loss of the concatenated log-scores."""
        chosen: list[int] = []
        while len(chosen) < min(views, len(self.heard)):
            loss = self._judge(chosen).loss if chosen else self.alone.loss.copy()
            loss[chosen] = np.inf
            chosen.append(int(loss.argmin()))
        return chosen

    def _judge(self, chosen: list[int]) -> _Errors:
        """Leave-one-out of each candidate joined to the chosen ones, a few at a time to bound the memory."""
        problem, labels = self.problem, self.problem.labels["train"][self.rows]
        groups = None if problem.groups is None else problem.groups["train"][self.rows]
        loss, accuracy = np.empty(len(self.heard)), np.empty(len(self.heard))
        n, width = len(labels), self.heard.shape[2] * (len(chosen) + 1)
        beside = self._grams[chosen].sum(axis=0) if width >= n else None
        block = max(1, MOST_JUDGED // (n * min(n, width)))
        for at in range(0, len(self.heard), block):
            some = np.arange(at, min(at + block, len(self.heard)))
            if beside is None:
                joined = np.stack([np.concatenate(self.heard[[*chosen, i]], axis=1) for i in some.tolist()])
                out = loo_ridge(joined, labels, problem.classes, groups=groups)
            else:
                out = loo_gram(beside + self._grams[some], labels, problem.classes, groups=groups)
            loss[some], accuracy[some] = out.loss, out.accuracy
        return _Errors(loss, accuracy)

    @cached_property
    def _grams(self) -> NDArray[np.float64]:
        """(V, n, n)."""
        return self.heard if self.heard.shape[2] == len(self.rows) else _gram(self.heard)


class _Errors(NamedTuple):
    """Leave-one-out figures of each candidate, (V,)."""

    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def spread(labels: Labels, seed: int) -> NDArray[np.intp]:
    """An order of the rows of which every beginning is stratified."""
    chance = np.random.default_rng([seed, len(labels)]).uniform(size=len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (np.argsort(np.argsort(chance[rows])) + chance[rows]) / len(rows)
    return np.argsort(place, kind="stable")
