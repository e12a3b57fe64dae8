"""Heads by name: what turns the scores of given views into target scores, fitted on answers already paid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.contracts import Labels, Scores, Split, TargetScores
from app.methods.problem import Problem
from app.reprogramming import mapping as mappings
from app.reprogramming.mapping import LabelMapping, log_scores, shares
from app.reprogramming.program import feature_columns

HeadType = Literal["best", "linear", "rbf", "random", "frequency", "bayesian"]
COUNTED = ("random", "frequency", "bayesian")
FOLDS = 3  # of what a counted head says of its training images


@dataclass(frozen=True)
class Head:
    """`best` is the linear or the RBF head, by cross-validation. `fused` heads read compact pixel features
    beside the scores; a counted one cannot. labels_per_class None: 1 for 2 classes, else up to 10. top: how
    many of the highest scores the bayesian one counts (1: BLM, more: BLM+)."""

    type: HeadType = "best"
    fused: bool = False
    labels_per_class: int | None = None
    top: int = 1

    @property
    def counted(self) -> bool:
        """Whether it is made of shares, without a fit."""
        return self.type in COUNTED

    def columns(self, problem: Problem, scores: Scores, split: Split) -> NDArray[np.float64]:
        """(V, n, K) scores of a split's images to the (n, F) columns that `fit` and the mapping read."""
        if self.counted:
            return feature_columns(shares(scores, problem.score_kind))
        pixels = problem.pixels[split] if self.fused else None
        return feature_columns(log_scores(scores, problem.floor, problem.score_kind), pixels)

    def fit(
        self,
        problem: Problem,
        columns: NDArray[np.float64],
        labels: Labels,
        groups: NDArray[Any] | None = None,
    ) -> LabelMapping:
        """Raises BadRequest `mapping_too_wide` for a counted head with more classes than columns."""
        if self.counted:
            return self._count(problem, columns, labels)
        return self._fitted(problem, columns, labels, groups, None)[0]

    def judge(
        self,
        problem: Problem,
        columns: NDArray[np.float64],
        labels: Labels,
        groups: NDArray[Any] | None,
        aside: NDArray[np.bool_],
    ) -> tuple[LabelMapping, TargetScores]:
        """The head fitted on all rows, and what one that has not seen it says of each, (n, T): of rows set
        `aside` (n,) one made of the other rows alone, of those one made without their fold. Raises as `fit`.
        """
        if not self.counted:
            return self._fitted(problem, columns, labels, groups, aside)

        def count(columns: NDArray[np.float64], labels: Labels, classes: int) -> LabelMapping:
            return self._count(problem, columns, labels)

        x, y = columns[~aside], labels[~aside]
        said = np.empty((len(labels), problem.classes))
        said[aside] = count(x, y, problem.classes).apply(columns[aside])
        apart = None if groups is None else groups[~aside]
        said[~aside] = mappings.cross_fit(x, y, problem.classes, count, FOLDS, problem.seed, apart)
        return count(columns, labels, problem.classes), said

    def _fitted(
        self,
        problem: Problem,
        columns: NDArray[np.float64],
        labels: Labels,
        groups: NDArray[Any] | None,
        aside: NDArray[np.bool_] | None,
    ) -> tuple[LabelMapping, TargetScores]:
        classes, seed = problem.classes, problem.seed
        pixels = problem.pixels["train"].shape[1] if self.fused else 0
        view = mappings.view_width(len(problem.source_labels), problem.score_kind)
        if self.type == "linear":
            return mappings.linear_head(columns, labels, classes, groups, seed, pixels, view, aside)
        if self.type == "rbf":
            return mappings.kernel_head(columns, labels, classes, groups, seed, pixels, aside)
        return mappings.best_head(columns, labels, classes, seed, groups, pixels, view, aside)

    def _count(self, problem: Problem, columns: NDArray[np.float64], labels: Labels) -> LabelMapping:
        classes = problem.classes
        if self.type == "bayesian":
            return mappings.bayesian_mapping(columns, labels, classes, self.top)
        width = self._width(columns, classes)
        if self.type == "random":
            return mappings.random_mapping(columns.shape[1], classes, width, problem.seed)
        return mappings.frequency_mapping(columns, labels, classes, width)

    def _width(self, columns: NDArray[np.float64], classes: int) -> int:
        if self.labels_per_class is not None:
            return self.labels_per_class
        return 1 if classes <= 2 else max(1, min(10, columns.shape[1] // classes))
