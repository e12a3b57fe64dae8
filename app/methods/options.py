"""What a user may say about a method: one base for all option models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Side = Annotated[
    int | None,
    Field(ge=8, le=1024, description="Side of the source image in pixels; null: the model's input size."),
]


class Options(BaseModel):
    """Options of a method. Unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SizedOptions(Options):
    """Options of a method that draws whole programs."""

    size: Side = None
