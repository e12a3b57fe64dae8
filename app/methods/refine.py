"""After the race: move the numbers of one chosen view by CMA-ES, in few dimensions, with money left over.

A candidate's loss is the closed-form leave-one-out error of all views' scores together, the moved view's
among them; the other views are paid already. What comes out is judged like any other program, on images that
had no part in it, and replaces the best only when it is better. Gradient estimates would cost
2 d (1 + c) queries a direction (c of 50 to 2,000); a rank-based search needs no gradient and takes any loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.contracts import Ask, MethodState, OptState, Scores, Vector
from app.methods import choice
from app.methods.candidates import LEAST_SCALE, largest
from app.methods.optimum import packed, unpacked
from app.methods.problem import Problem, Stage
from app.methods.race import spread
from app.optimisers import CmaEs
from app.reprogramming.picture import resampling
from app.reprogramming.ridge import loo_ridge
from app.reprogramming.transform import View

MOVE, VAL, TRAIN, DONE = "refine", "refined, validate", "refined, fit", "refined"
PHASES = (MOVE, VAL, TRAIN, DONE)
COARSE = 2  # cells a side of the colour shift
NUMBERS = 5  # scale, x, y, brightness, gain
DIMENSIONS = NUMBERS + 3 * COARSE**2
#: What one unit of the vector moves, per number: shares, shares, shares, grey levels, logarithm.
UNITS = (0.06, 0.09, 0.09, 7.5, 0.1)
OVERLAY_UNIT = 0.4  # of the overlay's parameters
FIRST_AMPLITUDE = 0.2  # of an overlay that the view did not have
IMAGES = 150  # training images a candidate is scored on
LEAST_GENERATIONS, MOST_GENERATIONS = 6, 40  # per view: fewer move nothing, more add nothing
OPTIMISER = CmaEs(smoothing=1.0)


@dataclass(frozen=True)
class Budget:
    """What a refinement costs, in queries. `views` of them are moved, one after another."""

    views: int
    generations: int
    generation: int
    judge: int

    @property
    def queries(self) -> int:
        return self.views * (self.generations * self.generation + self.judge)

    def stages(self) -> list[Stage]:
        return [Stage("refine", self.queries)] if self.views else []


def budget(free: int, views: int, train: int, val: int, least: int = LEAST_GENERATIONS) -> Budget:
    """As many views as `free` queries move for at least that many generations."""
    generation = OPTIMISER.candidates(DIMENSIONS) * min(train, IMAGES)
    judge = train + val
    moved = min(views, max(0, free) // (least * generation + judge))
    if not moved:
        return Budget(0, 0, generation, judge)
    return Budget(moved, min(MOST_GENERATIONS, (free // moved - judge) // generation), generation, judge)


def begin(problem: Problem, state: MethodState, plan: Budget) -> MethodState:
    """The first generation around the first view of the best program."""
    views = min(plan.views, len(choice.best(state).views))
    meta = {"view": 0, "moved": views, "generations": plan.generations}
    return choice.following(state, MOVE if views else DONE, meta, packed(_start(problem, 0)), {})


def ask(problem: Problem, state: MethodState) -> Ask | None:
    if state.phase == DONE:
        return None
    views, at = choice.best(state).views, state.meta["view"]
    optimum = unpacked(state)
    if state.phase == MOVE:
        moved = [vary(views[at], step) for step in OPTIMISER.ask(optimum)]
        return Ask((*views, *moved), _rows(problem), "train", "step")
    split = "val" if state.phase == VAL else "train"
    rows = np.arange(len(problem.labels[split]))
    return Ask(_with(views, at, vary(views[at], optimum.x)), rows, split, "evaluate")


def tell(problem: Problem, state: MethodState, scores: Scores, fused: choice.Fused) -> MethodState:
    views, at = choice.best(state).views, state.meta["view"]
    if state.phase == MOVE:
        losses = _losses(problem, scores, len(views), at)
        optimum = OPTIMISER.tell(unpacked(state), losses)
        phase = VAL if optimum.step >= state.meta["generations"] else MOVE
        return choice.following(state, phase, {}, packed(optimum), {"train_loss": float(losses.min())})
    if state.phase == VAL:
        return choice.following(state, TRAIN, {}, {**packed(unpacked(state)), "val": scores}, {})
    unseen = np.ones(len(problem.labels["train"]), bool)
    unseen[_rows(problem)] = False
    moved = _with(views, at, vary(views[at], unpacked(state).x))
    candidate = choice.judged(problem, moved, scores, state.arrays["val"], unseen, fused)
    phase = MOVE if at + 1 < state.meta["moved"] else DONE
    after = packed(_start(problem, at + 1))
    return choice.following(state, phase, {"view": at + 1}, after, {"views": float(len(views))}, candidate)


def vary(view: View, step: Vector) -> View:
    """The view with its numbers and a coarse colour shift moved by `step` (DIMENSIONS,)."""
    scale, x, y, brightness, gain = (step[:NUMBERS] * UNITS).tolist()
    shift = OVERLAY_UNIT * step[NUMBERS:].reshape(COARSE, COARSE, 3)
    overlay, amplitude = view.overlay, view.amplitude
    if overlay is None:
        overlay, amplitude = np.zeros((COARSE, COARSE, 3)), FIRST_AMPLITUDE
    up = resampling(COARSE, len(overlay))
    return replace(
        view,
        scale=float(np.clip(view.scale + scale, min(LEAST_SCALE, view.scale), largest(view))),
        x=float(np.clip(view.x + x, 0, 1)),
        y=float(np.clip(view.y + y, 0, 1)),
        brightness=view.brightness + brightness,
        gain=view.gain * float(np.exp(np.clip(gain, -3, 3))),
        overlay=overlay + np.einsum("ai,ijc,bj->abc", up, shift, up),
        amplitude=amplitude,
    )


def _losses(problem: Problem, scores: Scores, views: int, at: int) -> NDArray[np.float64]:
    """(C,) leave-one-out losses from the scores of the program's views, then of the candidates."""
    rows = _rows(problem)
    labels = problem.labels["train"][rows]
    groups = None if problem.groups is None else problem.groups["train"][rows]
    others = [i for i in range(views) if i != at]
    losses: list[float] = []
    for candidate in range(views, len(scores)):
        joined = choice.columns(problem, scores[[*others, candidate]])
        losses.append(float(loo_ridge(joined, labels, problem.classes, groups=groups).loss))
    return np.array(losses)


def _with(views: Sequence[View], at: int, moved: View) -> tuple[View, ...]:
    return tuple(moved if i == at else view for i, view in enumerate(views))


def _rows(problem: Problem) -> NDArray[np.intp]:
    return np.sort(spread(problem.labels["train"], problem.seed)[:IMAGES])


def _start(problem: Problem, view: int) -> OptState:
    return OPTIMISER.start(np.zeros(DIMENSIONS), problem.seed + 1000 * (view + 1))
