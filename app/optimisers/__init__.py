"""Zeroth-order minimisers: vectors in, vectors out. A new one is one file and one line of the table."""

from __future__ import annotations

from typing import TypeAlias

from app.optimisers.bar import Bar
from app.optimisers.cma_es import CmaEs
from app.optimisers.nes import Nes
from app.optimisers.prior import Prior
from app.optimisers.spsa import Spsa
from app.optimisers.zoo import Zoo

AnyOptimiser: TypeAlias = Bar | Zoo | Spsa | Nes | CmaEs | Prior

OPTIMISERS: dict[str, type[AnyOptimiser]] = {
    "bar": Bar,
    "zoo": Zoo,
    "spsa": Spsa,
    "nes": Nes,
    "cma_es": CmaEs,
    "prior": Prior,
}

__all__ = ["OPTIMISERS", "AnyOptimiser", "Bar", "CmaEs", "Nes", "Prior", "Spsa", "Zoo"]
