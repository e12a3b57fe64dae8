"""BAR and its kin: any optimiser of the table moves one visual prompt by the loss of mini-batches.

A step asks all candidates under the same mini-batch (common random numbers); every so often the prompt as it
stands is judged on the whole validation split, after its mapping was made again where the mapping follows
the program. What is served is the best by validation score, the plain view with the best head included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import Ask, MethodState, OptState, Scores, TargetScores
from app.methods import choice, noise
from app.methods.knobs import DescentOptions, MappingKind, given
from app.methods.optimum import packed, unpacked
from app.methods.problem import Problem, Shape, Stage
from app.optimisers import AnyOptimiser
from app.reprogramming import mapping as mappings
from app.reprogramming.loss import class_weights, focal_per_image
from app.reprogramming.mapping import LabelMapping
from app.reprogramming.program import Program
from app.reprogramming.scores import log_scores, shares
from app.reprogramming.splits import fold_numbers
from app.reprogramming.transform import (
    View,
    distinct_fraction,
    parameters,
    render,
    render_many,
    with_parameters,
)

STEP, REFIT, VAL, DONE = "step", "refit", "validate", "done"
HALVES = 2  # a fitted head's loss is taken from the half it was not fitted on
EVALUATED = 3  # with evaluate_every null, one query in so many steps' queries goes into judging
START = 0.3  # standard deviation of the first prompt: an even grey frame is a cliff for many networks
GREY = 127.5  # grey levels per unit of the prompt, at amplitude 1
LEAST_DISTINCT = 0.5
LEAST_FELT = 0.5  # of the probes: below, differences of losses are mostly nothing
LOOKED_AT = 4  # images on which it is checked that probes survive rounding


@dataclass(frozen=True)
class Pace:
    """How many steps, and how often they are judged."""

    steps: int
    every: int
    step: int  # queries of one step
    look: int  # queries of one judgement

    @property
    def looks(self) -> int:
        """Judgements: the start, then every so many steps, then the end."""
        return 1 + -(-self.steps // self.every) if self.steps else 0


@dataclass(frozen=True)
class Descent:
    """One optimiser on one visual prompt."""

    name: str
    options: DescentOptions

    @property
    def size(self) -> int | None:
        return self.options.program.size

    def plan(self, shape: Shape) -> list[Stage]:
        """Raises BadRequest `mapping_too_wide` when the classes need more source labels than there are."""
        classes, knobs = shape.target_labels, self.options.mapping
        source_labels = shape.source_labels or classes * knobs.width(classes, classes)  # unknown: enough
        if knobs.kind(source_labels, classes) in ("random", "frequency", "iterative"):
            width = knobs.width(source_labels, classes)
            mappings.random_mapping(source_labels, classes, width, 0)  # or refuses
        refits = knobs.refits(source_labels, classes)
        pace = self._pace(shape.train, shape.val, max(0, shape.queries - shape.probe), refits)
        return [
            Stage("probe", shape.probe),
            Stage("steps", pace.steps * pace.step),
            Stage("validation", pace.looks * pace.look),
        ]

    def start(self, problem: Problem) -> MethodState:
        view = self._base(problem)
        rng = np.random.default_rng([problem.seed, parameters(view)])
        optimiser = self._optimiser(view)
        first = optimiser.start(START * rng.standard_normal(parameters(view)), problem.seed)
        pace = self._problem_pace(problem)
        phase = DONE if not pace.steps else REFIT if self._refits(problem) else VAL
        arrays = packed(first)
        if not self._refits(problem):
            arrays |= _mapping_arrays("mapping", self._fixed(problem))
        return choice.opening(problem, phase, {"error": None}, arrays)

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        if state.phase == DONE:
            return None
        optimum, view = unpacked(state), self._base(problem)
        if state.phase == STEP:
            rows = self._batch(problem, optimum.step)
            views = tuple(with_parameters(view, w) for w in self._optimiser(view).ask(optimum))
            return Ask(views, rows, "train", "step")
        split = "val" if state.phase == VAL else "train"
        rows = np.arange(len(problem.labels[split]))
        return Ask((with_parameters(view, optimum.x),), rows, split, "evaluate")

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        if state.phase == STEP:
            return self._stepped(problem, state, scores)
        if state.phase == REFIT:
            return choice.following(state, VAL, {}, _kept(state) | self._refit(problem, scores), {})
        return self._judged(problem, state, scores)

    def program(self, problem: Problem, state: MethodState) -> Program:
        return choice.best(state)

    # ------------------------------------------------------------ one step

    def _stepped(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        view, optimum = self._base(problem), unpacked(state)
        optimiser, rows = self._optimiser(view), self._batch(problem, optimum.step)
        each = self._losses(problem, state, rows, scores)
        losses = each.mean(axis=-1)
        moved = optimiser.tell(optimum, losses)
        pace = self._problem_pace(problem)
        distinct = self._distinct(problem, view, optimum, rows)
        metrics = {"train_loss": float(losses.mean()), "distinct_fraction": distinct}
        told: dict[str, Any] = {"error": state.meta["error"]}
        if distinct < LEAST_DISTINCT:
            told["error"] = "probes_lost_in_rounding"
        elif (felt := self._felt(scores)) is not None:
            metrics["felt_fraction"] = felt
            told["error"] = told["error"] or ("probes_not_felt" if felt < LEAST_FELT else None)
        told |= self._noise(problem, state, each, metrics)
        look = moved.step % pace.every == 0 or moved.step >= pace.steps
        if told.get("warnings") and self.options.give_up:
            told["given_up"] = look = True
        phase = STEP if not look else REFIT if self._refits(problem) else VAL
        return choice.following(state, phase, told, _kept(state) | packed(moved), metrics)

    def _noise(
        self, problem: Problem, state: MethodState, each: Scores, metrics: dict[str, float]
    ) -> dict[str, Any]:
        """Sums for c, and the warning that follows from it; c itself goes into the metrics."""
        pairs = noise.pairs(self.options.optimiser(), len(each))
        if pairs is None:
            return {}
        known = noise.gathered(state.meta.get("noise", {}), each[pairs[0]] - each[pairs[1]])
        c = noise.ratio(known)
        if c is None:
            return {"noise": known}
        dim = parameters(self._base(problem))
        metrics["gradient_noise"] = c
        warning = noise.warning(c, dim, problem.queries)
        return {"noise": known, "warnings": [] if warning is None else [warning]}

    def _felt(self, scores: Scores) -> float | None:
        """Share of the probes (C, n, K) that got another answer than the candidate they are compared with."""
        pairs = noise.pairs(self.options.optimiser(), len(scores))
        if pairs is None or not len(pairs[0]):
            return None
        seen = np.nan_to_num(scores, nan=-np.inf)
        return float((seen[pairs[0]] != seen[pairs[1]]).any(axis=-1).mean())

    def _losses(self, problem: Problem, state: MethodState, rows: NDArray[np.intp], scores: Scores) -> Scores:
        """(C, n) losses of the candidates on each image from (C, n, K) scores of the mini-batch."""
        labels = problem.labels["train"]
        targets = self._targets(problem, state, rows, scores)
        if self.options.loss.type == "cross_entropy":
            return focal_per_image(targets, labels[rows], gamma=0.0)
        weights = class_weights(labels, problem.classes)
        return focal_per_image(targets, labels[rows], self.options.loss.gamma, weights)

    def _targets(
        self, problem: Problem, state: MethodState, rows: NDArray[np.intp], scores: Scores
    ) -> TargetScores:
        """(C, n, T). A fitted head scores only rows of the half it has not seen: one that interpolates its
        training rows has nothing left to descend."""
        if not self._refits(problem) or "half0.kind" not in state.arrays:
            head = _mapping_of(state, "mapping")
            return _apply(problem, head, scores)
        half = self._half(problem)[rows]
        heads = [_mapping_of(state, f"half{h}") for h in range(HALVES)]
        both = np.stack([_apply(problem, head, scores) for head in heads])
        return both[1 - half, :, np.arange(len(rows))].swapaxes(0, 1)

    def _distinct(self, problem: Problem, view: View, optimum: OptState, rows: NDArray[np.intp]) -> float:
        images = problem.images["train"][rows[:LOOKED_AT]]
        asked = self._optimiser(view).ask(optimum)
        probes = [with_parameters(view, w) for w in asked if not np.array_equal(w, optimum.x)]
        base = render(with_parameters(view, optimum.x), images)
        return distinct_fraction(base, render_many(probes, images)) if probes else 0.0

    def _batch(self, problem: Problem, step: int) -> NDArray[np.intp]:
        """The mini-batch of a step: distinct training images."""
        count = len(problem.labels["train"])
        rng = np.random.default_rng([problem.seed, step, count])
        return np.sort(rng.choice(count, min(given(self.options.batch_size), count), replace=False))

    # ------------------------------------------------------------ judging

    def _judged(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        optimum, base = unpacked(state), self._base(problem)
        program = choice.assembled(
            problem, (with_parameters(base, optimum.x),), _mapping_of(state, "mapping")
        )
        target = _apply(problem, program.mapping, scores)[0]
        candidate = choice.judged_by_validation(problem, program, target)
        over = optimum.step >= self._problem_pace(problem).steps or state.meta.get("given_up")
        phase = DONE if over else STEP
        return choice.following(state, phase, {}, _kept(state), {}, candidate)

    def _refit(self, problem: Problem, scores: Scores) -> dict[str, NDArray[np.float64]]:
        """Mappings of the program as it stands, from the scores (1, N, K) of all training images."""
        labels, classes = problem.labels["train"], problem.classes
        if self._kind(scores.shape[2], classes) == "iterative":
            m = self.options.mapping.width(scores.shape[2], classes)
            fitted = mappings.frequency_mapping(shares(scores[0], problem.score_kind), labels, classes, m)
            return _mapping_arrays("mapping", fitted)
        fit = mappings.kernel_mapping if self.options.mapping.type == "rbf" else mappings.linear_mapping
        x, half = choice.columns(problem, scores), self._half(problem)
        out = _mapping_arrays("mapping", fit(x, labels, classes, seed=problem.seed))
        for h in range(HALVES):
            rows = half == h
            head = fit(x[rows], labels[rows], classes, seed=problem.seed)
            out |= _mapping_arrays(f"half{h}", head)
        return out

    def _fixed(self, problem: Problem) -> LabelMapping:
        """A mapping made once, from the probe."""
        scores = shares(problem.probe["train"], problem.score_kind)
        labels, classes = problem.labels["train"], problem.classes
        kind, m = self._kind(scores.shape[1], classes), self.options.mapping.width(scores.shape[1], classes)
        if kind == "random":
            return mappings.random_mapping(scores.shape[1], classes, m, problem.seed)
        if kind == "frequency":
            return mappings.frequency_mapping(scores, labels, classes, m)
        return mappings.bayesian_mapping(scores, labels, classes, self.options.mapping.top)

    def _half(self, problem: Problem) -> NDArray[np.intp]:
        groups = None if problem.groups is None else problem.groups["train"]
        return fold_numbers(problem.labels["train"], HALVES, problem.seed, groups)

    # ------------------------------------------------------------ what the options come to

    def _base(self, problem: Problem) -> View:
        """The frame, with a prompt of zeros."""
        knobs = self.options.program
        cells = problem.size if knobs.resolution == "pixel" else min(knobs.resolution, problem.size)
        return View(
            size=problem.size,
            scale=knobs.frame,
            overlay=np.zeros((cells, cells, 3)),
            basis="pixel" if knobs.resolution == "pixel" else knobs.basis,
            mask=knobs.mask,
        )

    def _optimiser(self, view: View) -> AnyOptimiser:
        """Smoothing is raised to about a grey level, or the rounding of pixels would eat the probe; a prompt
        of single pixels keeps what the user asked for."""
        plain = self.options.optimiser()
        return (
            plain if view.basis == "pixel" else plain.floored(1 / (GREY * view.amplitude), parameters(view))
        )

    def _kind(self, source_labels: int, classes: int) -> MappingKind:
        return self.options.mapping.kind(source_labels, classes)

    def _refits(self, problem: Problem) -> bool:
        return self.options.mapping.refits(len(problem.source_labels), problem.classes)

    def _problem_pace(self, problem: Problem) -> Pace:
        counts = len(problem.labels["train"]), len(problem.labels["val"])
        return self._pace(*counts, problem.free, self._refits(problem), parameters(self._base(problem)))

    def _pace(self, train: int, val: int, free: int, refits: bool, dim: int | None = None) -> Pace:
        knobs = self.options.program
        cells = knobs.size or 224 if knobs.resolution == "pixel" else knobs.resolution
        rows = self.options.optimiser().candidates(3 * cells**2 if dim is None else dim)
        step = rows * min(given(self.options.batch_size), train)
        look = val + train * refits
        every = self.options.evaluate_every or max(1, -(-EVALUATED * look // step))
        steps = max(0, (free - look) // step)
        while steps and look * (1 + -(-steps // every)) + steps * step > free:
            steps -= 1
        return Pace(steps, every, step, look)


def _apply(problem: Problem, head: LabelMapping, scores: Scores) -> TargetScores:
    """(C, n, K) scores of candidates, each by itself, to (C, n, T)."""
    if head.kind == "group":
        return head.apply(shares(scores, problem.score_kind))
    return head.apply(log_scores(scores, problem.floor, problem.score_kind))


def _kept(state: MethodState) -> dict[str, NDArray[np.float64]]:
    return {name: array for name, array in state.arrays.items() if name != choice.BEST}


def _mapping_arrays(name: str, mapping: LabelMapping) -> dict[str, NDArray[np.float64]]:
    arrays, _ = mapping.to_arrays()
    out = {f"{name}.{part}": array for part, array in arrays.items()}
    if mapping.support is not None:
        out[f"{name}.gamma"] = np.array(mapping.gamma)
    return out | {f"{name}.kind": np.array(mapping.kind == "group")}


def _mapping_of(state: MethodState, name: str) -> LabelMapping:
    parts = {n.removeprefix(f"{name}."): a for n, a in state.arrays.items() if n.startswith(f"{name}.")}
    beside = "whitened" if "turn" in parts else "mixed"
    fitted = beside if "linear" in parts else "kernel" if "support" in parts else "linear"
    kind = "group" if parts.pop("kind") else fitted
    return LabelMapping.from_arrays(parts, {"kind": kind, "gamma": float(parts.pop("gamma", 0.0))})
