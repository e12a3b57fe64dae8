"""What a method is given, and what it must offer: the contract between jobs and learning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.contracts import Ask, Images, Labels, MethodState, ScoreKind, Scores, Split
from app.reprogramming import picture
from app.reprogramming.encoder import Encoder
from app.reprogramming.program import Program


@dataclass(frozen=True)
class Problem:
    """A target task, a source model and what may be asked of it. There is no test split in here."""

    images: dict[Split, Images]  # canonical target images (n, h, w, 3) of train and val
    labels: dict[Split, Labels]
    target_labels: tuple[str, ...]
    source_labels: tuple[str, ...]
    score_kind: ScoreKind
    floor: float  # least score that means anything, in the scores' units
    size: int  # side of the source image, pixels
    seed: int
    queries: int  # how many learning may use, the probe pass included
    queries_per_prediction: int  # most views of the finished program
    probe: dict[Split, Scores]  # (n, K) scores of the plain view, already paid
    groups: dict[Split, NDArray[Any]] | None = None  # rows of one group never part in cross-validation
    encoder: Encoder | None = None  # drew the images from records, for which `records` are (n, F) features
    records: dict[Split, NDArray[np.float64]] | None = None
    background: picture.Colour = picture.WHITE  # that transparent pixels were laid on

    @property
    def classes(self) -> int:
        """T."""
        return len(self.target_labels)

    @property
    def count(self) -> int:
        """Training and validation images."""
        return len(self.labels["train"]) + len(self.labels["val"])

    @property
    def detailed(self) -> bool:
        """Whether target images have more pixels than a source image shows: a part of one, enlarged, shows
        what the whole does not."""
        return min(self.images["train"].shape[1:3]) > self.size

    @property
    def free(self) -> int:
        """Queries left once the probe pass is paid."""
        return max(0, self.queries - self.count)

    @property
    def shape(self) -> Shape:
        """What a plan is made of."""
        return Shape(
            train=len(self.labels["train"]),
            val=len(self.labels["val"]),
            target_labels=self.classes,
            source_labels=len(self.source_labels),
            queries=self.queries,
            queries_per_prediction=self.queries_per_prediction,
        )

    def within(self, queries: int) -> Problem:
        """The same problem with so many queries."""
        return self if queries == self.queries else replace(self, queries=queries)

    @cached_property
    def pixels(self) -> dict[Split, NDArray[np.float64]]:
        """Compact pixel features (n, P) of each split, for fused heads."""
        return {split: picture.features(images) for split, images in self.images.items()}


@dataclass(frozen=True)
class Shape:
    """What is known of a problem before anything is paid."""

    train: int
    val: int
    target_labels: int
    source_labels: int | None  # None: the provider does not say until asked
    queries: int  # for learning, probe included
    queries_per_prediction: int

    @property
    def probe(self) -> int:
        """Queries of the probe pass."""
        return self.train + self.val

    def within(self, queries: int) -> Shape:
        """The same shape with so many queries."""
        return replace(self, queries=queries)


@dataclass(frozen=True)
class Stage:
    """A part of a job's plan: how many queries it may take at most."""

    name: str
    queries: int


class Method(Protocol):
    """A learner: what to ask next, what the answers mean. Pure; randomness from (problem.seed, state.step).

    Answers once paid come back free, so asking the same views of the same images again costs nothing; a
    method counts each pair of view and image once.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None:
        """Side of the source image that the user wants, pixels; None: the source model's own."""
        ...

    def plan(self, shape: Shape) -> list[Stage]:
        """For the quote. Raises BadRequest for what cannot work at this shape."""
        ...

    def start(self, problem: Problem) -> MethodState: ...

    def ask(self, problem: Problem, state: MethodState) -> Ask | None:
        """What to score next, within `problem.queries`; None: finished. Twice the same."""
        ...

    def tell(self, problem: Problem, state: MethodState, scores: Scores) -> MethodState:
        """Scores (V, n, K) of `ask`; a row of NaN is an image without an answer."""
        ...

    def program(self, problem: Problem, state: MethodState) -> Program:
        """The best program so far by validation score. Servable at any moment."""
        ...
