from __future__ import annotations

import numpy as np
import pytest

from app.contracts import ScoreKind
from app.jobs.probe import measured_kind

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "stated", "measured"),
    [
        ([0.25, 0.75], "independent", "probability"),
        ([0.25, 0.2], "probability", "independent"),
        ([0.9, 0.8, NAN], "probability", "independent"),
        ([55.0, 2.0], "probability", "percent"),
        ([-3.0, 0.5], "probability", "logit"),
        ([0.5] * 200, "percent", "percent"),
        ([140.0], "percent", "logit"),
        ([0.0, 4.0], "severity", "severity"),
        ([NAN], "percent", None),
    ],
)
def test_measured_kind(scores: list[float], stated: ScoreKind, measured: ScoreKind | None) -> None:
    assert measured_kind(np.array(scores), stated) == measured
