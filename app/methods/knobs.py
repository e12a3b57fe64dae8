"""Options of the methods that descend: one model per optimiser, what they share in the base."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import Field

from app.methods.options import Options, Side
from app.optimisers import AnyOptimiser, Bar, CmaEs, Nes, Prior, Spsa, Zoo

MappingKind = Literal["random", "frequency", "iterative", "bayesian", "linear", "rbf"]
REFITTED = ("iterative", "linear", "rbf")  # mappings that follow the program
MOST_PER_CLASS = 10

Auto: TypeAlias = Literal["auto"]
Number = TypeVar("Number", int, float)
Count = Annotated[int, Field(ge=1, le=1000)]
Size = Annotated[float, Field(gt=0, le=100)]
Batch = Annotated[int, Field(ge=1, le=10_000)]

Directions = Annotated[
    Count | Auto, Field(description="Random directions per step, q; auto: d / 10, 1 to 25, as money allows.")
]
Smoothing = Annotated[
    Size | Auto,
    Field(description="Size of the probing step; raised to a grey level; auto: by d where it is a norm."),
]
StepSize = Annotated[
    Size | Auto, Field(description="Step size; auto: as the estimate's norm asks, sqrt(q / d).")
]


def given(value: Number | Auto) -> Number:
    """A knob that has a number by now (`scaled.settled`)."""
    assert value != "auto", "not settled"
    return value


class MappingOptions(Options):
    """How source labels become target labels."""

    type: Annotated[
        Literal["auto", "random", "frequency", "iterative", "bayesian", "linear", "rbf"],
        Field(description="auto: frequency, or linear where classes outnumber the source labels."),
    ] = "auto"
    labels_per_class: Annotated[
        int | None,
        Field(ge=1, le=500, description="Source labels per class, m; null: 1 for 2 classes, else up to 10."),
    ] = None

    top: Annotated[
        int, Field(ge=1, le=1000, description="bayesian: highest scores counted; 1: BLM, more: BLM+.")
    ] = 1

    def kind(self, source_labels: int, classes: int) -> MappingKind:
        """What `type` comes to."""
        if self.type != "auto":
            return self.type
        return "frequency" if source_labels >= classes else "linear"

    def width(self, source_labels: int, classes: int) -> int:
        """What `labels_per_class` comes to."""
        if self.labels_per_class is not None:
            return self.labels_per_class
        return 1 if classes <= 2 else max(1, min(MOST_PER_CLASS, source_labels // classes))

    def refits(self, source_labels: int, classes: int) -> bool:
        """Whether the mapping is made again as the program moves."""
        return self.kind(source_labels, classes) in REFITTED


class LossOptions(Options):
    """What a step brings down."""

    type: Annotated[
        Literal["focal", "cross_entropy"], Field(description="focal is weighted by class as well.")
    ] = "focal"
    gamma: Annotated[float, Field(ge=0, le=10, description="Exponent of the focal loss.")] = 2.0


class ProgramOptions(Options):
    """The frame and the visual prompt in it."""

    frame: Annotated[
        float, Field(gt=0, le=1, description="Side of the placed image, as a share of the source image's.")
    ] = 0.5
    size: Side = None
    resolution: Annotated[
        Annotated[int, Field(ge=1, le=64)] | Literal["pixel"],
        Field(description="Cells a side of the prompt's coarse grid (1 to 64), or 'pixel': the paper's."),
    ] = 4
    basis: Annotated[Literal["grid", "dct"], Field(description="What the cells are spread with.")] = "grid"
    mask: Annotated[
        Literal["frame", "full"], Field(description="frame: the prompt is zero where the image sits.")
    ] = "frame"


class DescentOptions(Options):
    """What all optimisers share."""

    batch_size: Annotated[
        Batch | Auto,
        Field(description="Training images per step; auto: 5 to 20, by the budget."),
    ] = 20
    evaluate_every: Annotated[
        int | None,
        Field(ge=1, description="Steps between validations; null: about a quarter of the queries validate."),
    ] = None
    give_up: Annotated[
        bool,
        Field(description="End once the noise of the gradient is seen to be beyond the whole budget."),
    ] = False
    mapping: Annotated[MappingOptions, Field(default_factory=MappingOptions)]
    loss: Annotated[LossOptions, Field(default_factory=LossOptions)]
    program: Annotated[ProgramOptions, Field(default_factory=ProgramOptions)]

    @abstractmethod
    def optimiser(self) -> AnyOptimiser:
        """The optimiser these options describe."""


class BarOptions(DescentOptions):
    """Black-box adversarial reprogramming as published (Tsai, Chen and Ho 2020)."""

    directions: Directions = 5
    smoothing: Smoothing = 0.1
    step_size: StepSize = 0.05
    decay: Annotated[float, Field(gt=0, le=1, description="Factor on the step size per step.")] = 0.99

    def optimiser(self) -> AnyOptimiser:
        return Bar(given(self.directions), given(self.smoothing), given(self.step_size), self.decay)


class ZooOptions(DescentOptions):
    """Coordinate descent (Chen et al. 2017)."""

    coordinates: Annotated[
        Count | Auto, Field(description="Coordinates moved per step; auto: d / 10, 1 to 25, as money allows.")
    ] = 4
    smoothing: Smoothing = 0.05
    step_size: StepSize = 0.05
    solver: Annotated[Literal["adam", "newton"], Field(description="What moves a coordinate.")] = "adam"

    def optimiser(self) -> AnyOptimiser:
        return Zoo(given(self.coordinates), given(self.smoothing), given(self.step_size), self.solver)


class SpsaOptions(DescentOptions):
    """Simultaneous perturbation with gradient correction (BlackVIP, Oh et al. 2023)."""

    repeats: Annotated[
        Count | Auto, Field(description="Pairs averaged per step; auto: d / 10, 1 to 25, as money allows.")
    ] = 5
    smoothing: Smoothing = 0.05
    step_size: StepSize = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1, description="Nesterov momentum.")] = 0.9

    def optimiser(self) -> AnyOptimiser:
        return Spsa(given(self.repeats), given(self.smoothing), given(self.step_size), self.momentum)


class NesOptions(DescentOptions):
    """Antithetic natural evolution strategy (Ilyas et al. 2018)."""

    directions: Directions = 5
    smoothing: Smoothing = 0.05
    step_size: StepSize = 0.02

    def optimiser(self) -> AnyOptimiser:
        return Nes(given(self.directions), given(self.smoothing), given(self.step_size))


class CmaEsOptions(DescentOptions):
    """Covariance matrix adaptation (Hansen 2016)."""

    population: Annotated[
        int | None, Field(ge=2, le=1000, description="Candidates per step; null: 4 + 3 ln d.")
    ] = None
    smoothing: Smoothing = 0.1
    covariance: Annotated[
        Literal["auto", "full", "separable"], Field(description="auto: separable above 200 parameters.")
    ] = "auto"
    batch_size: Annotated[
        Batch | Auto,
        Field(description="Training images per step; auto: 5 to 100, by the budget."),
    ] = 100

    def optimiser(self) -> AnyOptimiser:
        cells = self.program.resolution
        big = cells == "pixel" or 3 * cells**2 > 200
        kind = self.covariance if self.covariance != "auto" else "separable" if big else "full"
        return CmaEs(self.population, given(self.smoothing), kind)


class PriorOptions(DescentOptions):
    """Directions guided by a surrogate of the slopes already paid for (after Cheng et al. 2019)."""

    directions: Directions = 5
    smoothing: Smoothing = 0.1
    step_size: StepSize = 0.02

    def optimiser(self) -> AnyOptimiser:
        return Prior(given(self.directions), given(self.smoothing), given(self.step_size))
