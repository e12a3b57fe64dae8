"""CMA-ES, full or separable (Hansen 2016; Ros and Hansen 2008), on the `cmaes` package."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from app.contracts import Arrays, Losses, OptState, Vector
from app.optimisers.base import Floats, checked, following, vector

if TYPE_CHECKING:
    from cmaes import CMA, SepCMA

PATHS = ("_C", "_p_sigma", "_pc")  # what the package changes in `tell`, beside mean, sigma and generation


@dataclass(frozen=True)
class CmaEs:
    """Ranks a population and adapts the distribution it was drawn from; any loss will do, also 0-1 loss.

    The package's object is rebuilt from arrays at every step, so a checkpoint needs no pickle and a restored
    run draws the same population. Costs 4 + 3 ln d candidates per step unless `population` says otherwise.
    """

    population: int | None = None
    smoothing: float = 0.1  # sigma at the start, per coordinate
    covariance: Literal["full", "separable"] = "full"

    def floored(self, rms: float, dim: int) -> CmaEs:
        """This optimiser with a starting spread of at least `rms` per coordinate."""
        return replace(self, smoothing=max(self.smoothing, rms))

    def candidates(self, dim: int) -> int:
        """Rows of `ask`."""
        return self.population or 4 + math.floor(3 * math.log(dim))  # Hansen 2016, equation 48

    def start(self, x: Vector, seed: int) -> OptState:
        begin = vector(x)
        if self.covariance == "separable" and len(begin) < 2:
            raise ValueError("separable CMA-ES needs at least 2 parameters")
        if self.candidates(len(begin)) < 2:
            raise ValueError("CMA-ES needs a population of at least 2")
        return OptState(0, seed, begin, _memory(self._fresh(begin)))

    def ask(self, state: OptState) -> Floats:
        """(population, d) samples of the current distribution."""
        cma = self._rebuilt(state)
        word = np.random.SeedSequence([state.seed, state.step]).generate_state(1)[0]
        cma.reseed_rng(int(word))
        return np.stack([cma.ask() for _ in range(cma.population_size)])

    def tell(self, state: OptState, losses: Losses) -> OptState:
        values = checked(losses, self.candidates(len(state.x)))
        population = self.ask(state)
        cma = self._rebuilt(state)
        cma.tell([(x, float(loss)) for x, loss in zip(population, values, strict=True)])
        return following(state, np.array(cma.mean), _memory(cma))

    def _fresh(self, mean: Vector) -> CMA | SepCMA:
        import cmaes  # loads scipy.stats: a third of the time that the program takes to start

        kind = cmaes.CMA if self.covariance == "full" else cmaes.SepCMA
        return kind(mean=mean.copy(), sigma=self.smoothing, population_size=self.candidates(len(mean)))

    def _rebuilt(self, state: OptState) -> CMA | SepCMA:
        cma = self._fresh(state.x)
        kept: dict[str, Any] = {name: state.memory[name].copy() for name in PATHS}
        vars(cma).update(kept, _sigma=float(state.memory["_sigma"]), _g=state.step)
        return cma


def _memory(cma: CMA | SepCMA) -> Arrays:
    return {name: np.array(vars(cma)[name], np.float64) for name in (*PATHS, "_sigma")}
