"""Every optimiser of the table meets the suite; a new one is in here by being in the table."""

from __future__ import annotations

import pytest
from conformance.optimisers import GradientSuite, OptimiserSuite

from app.contracts import Optimiser
from app.optimisers import OPTIMISERS, Bar, CmaEs, Prior, Zoo

GRADIENT = {name: kind() for name, kind in OPTIMISERS.items() if hasattr(kind, "estimate")} | {
    "bar, five directions": Bar(directions=5),
    "zoo, newton": Zoo(solver="newton", step_size=0.3),
    "prior, two directions": Prior(directions=2),
}
OTHERS = {name: kind() for name, kind in OPTIMISERS.items() if not hasattr(kind, "estimate")} | {
    "cma_es, separable": CmaEs(covariance="separable"),
    "cma_es, population 12": CmaEs(population=12),
}


class TestGradientOptimisers(GradientSuite):
    @pytest.fixture(params=GRADIENT)
    def optimiser(self, request: pytest.FixtureRequest) -> Optimiser:
        return GRADIENT[request.param]


class TestOtherOptimisers(OptimiserSuite):
    @pytest.fixture(params=OTHERS)
    def optimiser(self, request: pytest.FixtureRequest) -> Optimiser:
        return OTHERS[request.param]
