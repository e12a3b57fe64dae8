"""Every method of the table meets the suite; a new one is in here by being in the table."""

from __future__ import annotations

import pytest
from conformance.methods import MethodSuite

from app.methods import METHODS, Method, make

VARIANTS = {name: make(name, {}) for name in METHODS} | {
    "bar, linear mapping": make("bar", {"mapping": {"type": "linear"}, "batch_size": 8}),
    "bar, iterative mapping": make("bar", {"mapping": {"type": "iterative"}, "program": {"mask": "full"}}),
    "zoo, newton, random mapping": make("zoo", {"solver": "newton", "mapping": {"type": "random"}}),
    "nes, bayesian mapping": make(
        "nes", {"mapping": {"type": "bayesian"}, "loss": {"type": "focal", "gamma": 0}}
    ),
    "spsa, rbf mapping": make("spsa", {"mapping": {"type": "rbf"}, "repeats": 1, "batch_size": 10}),
    "bar, gives up": make("bar", {"give_up": True, "batch_size": 25}),
    "prior, BLM+": make("prior", {"mapping": {"type": "bayesian", "top": 3}}),
    "bar, pixels": make("bar", {"program": {"resolution": "pixel"}, "directions": 1}),
    "auto, scores and pixels": make("auto", {"fused": True}),
    "auto, refined": make("auto", {"fused": False, "refine": True}),
    "race, small": make("race", {"images": 20, "candidates": 5}),
}


class TestMethods(MethodSuite):
    @pytest.fixture(params=VARIANTS)
    def method(self, request: pytest.FixtureRequest) -> Method:
        return VARIANTS[request.param]
