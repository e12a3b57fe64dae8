"""The table of methods, their options, and states as bytes."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from conformance.methods import Source, play, problem

from app.contracts import MethodState
from app.errors import BadRequest
from app.methods import METHODS, make, schemas
from app.methods.choice import Judged, plain
from app.methods.state import from_bytes, to_bytes

STATE = MethodState(
    3, "step", {"order": [[1, 2]], "x": None}, {"a": np.eye(2), "b": np.arange(3)}, {"loss": 0.5}
)


def test_every_schema_has_defaults_and_descriptions() -> None:
    assert set(schemas()) == set(METHODS)
    for name, schema in schemas().items():
        assert schema["additionalProperties"] is False, name
        for option, field in schema.get("properties", {}).items():
            assert "description" in field or "$ref" in field, (name, option)
            assert option not in schema.get("required", [])


@pytest.mark.parametrize(
    ("name", "options", "param"),
    [
        ("nothing", {}, "method.type"),
        ("bar", {"attack": 1}, "method.attack"),
        ("bar", {"directions": 0}, "method.directions"),
        ("bar", {"mapping": {"type": "magic"}}, "method.mapping.type"),
        ("bar", {"program": {"resolution": 65}}, "method.program.resolution"),
        ("race", {"images": 3}, "method.images"),
        ("auto", {"size": 100_000}, "method.size"),
    ],
)
def test_a_wrong_option_is_named(name: str, options: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        make(name, options)
    assert refused.value.param is not None
    assert refused.value.param.startswith(param)
    assert refused.value.hint


def test_the_size_a_user_wants_is_the_methods_size() -> None:
    assert make("auto", {"size": 128}).size == 128
    assert make("bar", {"program": {"size": 96}}).size == 96
    assert make("race", {}).size is None


def test_a_state_comes_back_as_it_was() -> None:
    back = from_bytes(to_bytes(STATE))
    assert (back.step, back.phase, back.meta, back.metrics) == (3, "step", STATE.meta, STATE.metrics)
    assert back.arrays.keys() == STATE.arrays.keys()
    assert all(
        back.arrays[k].dtype == a.dtype and np.array_equal(back.arrays[k], a) for k, a in STATE.arrays.items()
    )
    assert to_bytes(back) == to_bytes(STATE)


def test_a_state_holds_no_pickle() -> None:
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        to_bytes(MethodState(0, "x", {}, {"a": np.array([object()])}))
    blob = io.BytesIO()
    np.savez(blob, **{"arrays/a": np.array([{}], dtype=object), "state.json": np.zeros(2, np.uint8)})
    with pytest.raises(ValueError, match="state"):
        from_bytes(blob.getvalue())


@pytest.mark.parametrize("blob", [b"", b"PK", b"\x80\x04N.", to_bytes(STATE)[:-30]])
def test_bytes_that_are_no_state_are_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="state"):
        from_bytes(blob)


def test_an_archive_of_something_else_is_refused() -> None:
    blob = io.BytesIO()
    with zipfile.ZipFile(blob, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match="state"):
        from_bytes(blob.getvalue())


RIGHT = np.arange(100) < 50
BEFORE = np.stack([RIGHT, np.ones(100)])


def judged(right: np.ndarray, loss: float = 1.0, seen: int = 0) -> Judged:
    program = plain(problem(Source())).program
    losses = loss + 0.1 * np.random.default_rng(0).standard_normal(len(right))
    record = np.stack([right.astype(float), losses])
    record[:, :seen] = np.nan
    return Judged(program, record, 20)


def test_a_gain_within_a_standard_error_is_luck() -> None:
    swapped, better = RIGHT.copy(), RIGHT.copy()
    swapped[[0, 1, 60, 61, 62]] ^= True  # 3 won, 2 lost
    better[50:60] = True  # 10 won
    assert not judged(RIGHT).clears(BEFORE)
    assert not judged(swapped).clears(BEFORE)
    assert judged(better).clears(BEFORE)


def test_a_better_loss_counts_where_accuracy_is_no_worse() -> None:
    assert judged(RIGHT, 0.9).clears(BEFORE)
    assert not judged(np.arange(100) < 49, 0.5).clears(BEFORE)


def test_images_that_the_choice_has_seen_are_no_evidence() -> None:
    better = RIGHT.copy()
    better[50:60] = True
    assert not judged(better, seen=60).clears(BEFORE)
    assert judged(better, seen=40).clears(BEFORE)
    assert judged(better, seen=60).accuracy == 0.0


def test_checkpoints_are_small() -> None:
    """No scores that the answer store holds anyway."""
    source = Source()
    for name in METHODS:
        for state in play(make(name, {}), problem(source), source):
            assert len(to_bytes(state)) < 100_000
