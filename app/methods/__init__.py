"""Methods: what to ask next, and what the answers mean. A new one is one file and one line of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from app.errors import BadRequest
from app.methods.auto import Auto, AutoOptions
from app.methods.baseline import Baseline, BaselineOptions
from app.methods.knobs import BarOptions, CmaEsOptions, NesOptions, PriorOptions, SpsaOptions, ZooOptions
from app.methods.options import Options
from app.methods.problem import Method, Problem, Shape, Stage
from app.methods.race import Race, RaceOptions
from app.methods.scaled import Scaled
from app.methods.views import Views, ViewsOptions

#: Name -> options model, and the method made of its name and options.
METHODS: dict[str, tuple[type[Options], Callable[[str, Any], Method]]] = {
    "auto": (AutoOptions, Auto),
    "race": (RaceOptions, Race),
    "views": (ViewsOptions, Views),
    "bar": (BarOptions, Scaled),
    "zoo": (ZooOptions, Scaled),
    "spsa": (SpsaOptions, Scaled),
    "nes": (NesOptions, Scaled),
    "cma_es": (CmaEsOptions, Scaled),
    "prior": (PriorOptions, Scaled),
    "baseline": (BaselineOptions, Baseline),
}


def make(name: str, options: Mapping[str, Any]) -> Method:
    """The method of that name. Raises BadRequest naming the option that is wrong."""
    if name not in METHODS:
        raise BadRequest(
            f"There is no method {name!r}.",
            code="unknown_method",
            param="method.type",
            hint=f"Choose one of {', '.join(METHODS)}; GET /v1/methods describes them.",
        )
    model, build = METHODS[name]
    try:
        return build(name, model.model_validate(dict(options)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise BadRequest(
            f"Method {name!r}: {first['msg']}.",
            param=".".join(["method", *(str(part) for part in first["loc"])]),
            hint=f"Its options are {', '.join(['type', *model.model_fields])}; see GET /v1/methods.",
        ) from error


def schemas() -> dict[str, dict[str, Any]]:
    """Name -> JSON schema of the options, with defaults and descriptions."""
    return {name: model.model_json_schema() for name, (model, _) in METHODS.items()}


__all__ = ["METHODS", "Method", "Problem", "Race", "Shape", "Stage", "make", "schemas"]
