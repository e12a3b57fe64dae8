"""What "auto" comes to."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.methods import Source, play, problem

from app.errors import BadRequest
from app.methods import Shape, make, schemas

AUTO: dict[str, dict[str, Any]] = {
    "bar": {"directions": "auto", "smoothing": "auto", "step_size": "auto", "batch_size": "auto"},
    "zoo": {"coordinates": "auto", "smoothing": "auto", "step_size": "auto", "batch_size": "auto"},
    "spsa": {"repeats": "auto", "smoothing": "auto", "step_size": "auto", "batch_size": "auto"},
    "nes": {"directions": "auto", "smoothing": "auto", "step_size": "auto", "batch_size": "auto"},
    "prior": {"directions": "auto", "smoothing": "auto", "step_size": "auto", "batch_size": "auto"},
    "cma_es": {"population": "auto", "smoothing": "auto", "batch_size": "auto", "evaluate_every": "auto"},
    "race": {"candidates": "auto", "size": "auto"},
    "views": {"views": "auto"},
}


@pytest.mark.parametrize("name", AUTO)
def test_every_method_runs_on_auto_alone_and_keeps_to_the_budget(name: str) -> None:
    source = Source()
    task = problem(source, queries=1500)
    *_, last = play(make(name, AUTO[name]), task, source)
    assert len(source.seen) <= task.queries
    settled = last.meta.get("settled", {})
    assert set(settled) == (set(AUTO[name]) - {"evaluate_every"} if name not in ("race", "views") else set())
    assert all(isinstance(value, (int, float)) and value > 0 for value in settled.values())


def test_numbers_follow_the_dimension_and_the_budget() -> None:
    def settled(queries: int, resolution: int) -> dict[str, Any]:
        source = Source()
        method = make("bar", {**AUTO["bar"], "program": {"resolution": resolution}})
        return method.start(problem(source, queries=queries)).meta["settled"]

    usual, wide, poor = settled(10_000, 4), settled(10_000, 8), settled(700, 4)
    assert usual["directions"] == 5
    assert wide["directions"] > 5 > poor["directions"]
    assert usual["batch_size"] == 20 > poor["batch_size"]
    assert wide["smoothing"] == pytest.approx(2 * usual["smoothing"], rel=1e-4)


def test_auto_is_in_the_schema_and_nothing_else_is_taken() -> None:
    shapes = schemas()
    for name, options in AUTO.items():
        for knob in options:
            assert {"const": "auto"}.items() <= next(
                shape for shape in shapes[name]["properties"][knob]["anyOf"] if "const" in shape
            ).items()
    with pytest.raises(BadRequest) as refused:
        make("bar", {"directions": "automatic"})
    assert str(refused.value.param).startswith("method.directions")


def test_a_default_has_nothing_to_settle() -> None:
    assert "settled" not in make("bar", {}).start(problem(Source())).meta
    assert make("bar", {}).plan(Shape(400, 100, 10, 1000, 10_000, 1))
