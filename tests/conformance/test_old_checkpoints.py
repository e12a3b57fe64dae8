"""What an earlier release wrote, this one resumes and serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conformance.methods import CLASSES, Source, drawn, play, problem

from app.methods import make
from app.methods.state import from_bytes
from app.reprogramming import program as programs
from app.reprogramming.transform import render_many

STATES = sorted((Path(__file__).parents[1] / "fixtures").glob("release-*/*.npz"))


def test_there_are_some() -> None:
    assert len(STATES) >= 9


@pytest.mark.parametrize("path", STATES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_state_resumes_and_its_program_predicts(path: Path) -> None:
    source, method = Source(), make(path.stem, {})
    task, state = problem(source), from_bytes(path.read_bytes())
    *_, last = play(method, task, source, state)
    assert last.step >= state.step
    assert len(source.seen) <= task.queries  # what the state knows is not asked again
    images, labels = drawn(60, 9)
    for program in (
        method.program(task, last),
        programs.from_bytes(path.with_suffix(".safetensors").read_bytes()),
    ):
        answered = source(render_many(program.views, images)).reshape(len(program.views), len(images), -1)
        scores = programs.score(program, answered, images)
        assert scores.shape == (60, CLASSES)
        np.testing.assert_allclose(scores.sum(axis=1), 1)
        assert (scores.argmax(axis=1) == labels).mean() > 1 / CLASSES
