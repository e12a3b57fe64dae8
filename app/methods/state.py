"""A method's state as bytes: npz arrays and JSON, never pickle. The same state gives the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts import MethodState

HEAD = "state.json"
PREFIX = "arrays/"


def to_bytes(state: MethodState) -> bytes:
    """Raises ValueError for meta that JSON cannot carry, or for arrays of objects."""
    head = {"step": state.step, "phase": state.phase, "meta": state.meta, "metrics": state.metrics}
    text = json.dumps(head, sort_keys=True, allow_nan=False).encode()
    arrays = {PREFIX + name: array for name, array in sorted(state.arrays.items())}
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **{HEAD: np.frombuffer(text, np.uint8)}, **arrays)
    return out.getvalue()


def from_bytes(blob: bytes) -> MethodState:
    """The inverse of `to_bytes`. Raises ValueError for bytes that are no state."""
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
        head = json.loads(arrays.pop(HEAD).tobytes())
        kept = {name.removeprefix(PREFIX): array for name, array in arrays.items()}
        return MethodState(head["step"], head["phase"], head["meta"], kept, head["metrics"])
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError("these bytes are not a method's state") from error
