"""What a job's body may not say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import BadRequest
from app.jobs.spec import JobSpec


@pytest.mark.parametrize(
    "more",
    [
        {"seed": True},
        {"limits": {"max_queries": True}},
        {"limits": {"pause_after_probe": 1}},
        {"method": {"type": "bar", "directions": True}},
        {"method": {"type": "bar", "give_up": 1}},
    ],
)
def test_true_is_no_number_and_one_is_not_true(more: dict[str, Any]) -> None:
    body = {"name": "x", "connection_id": "conn_1", "dataset_id": "ds_1", **more}
    with pytest.raises((ValidationError, BadRequest), match="true or false"):
        JobSpec.model_validate(body).method.build()
