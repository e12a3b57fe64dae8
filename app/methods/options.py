"""What a user may say about a method: one base for all option models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

Side = Annotated[
    int | None,
    Field(ge=8, le=1024, description="Side of the source image in pixels; null: the model's input size."),
]


def _says_auto(schema: dict[str, Any]) -> None:
    for shape in schema.get("properties", {}).values():
        if {"type": "null"} in shape.get("anyOf", []):
            shape["anyOf"].append({"const": "auto"})


class Options(BaseModel):
    """Options of a method. Unknown members are refused; what may be null may be "auto" as well."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_says_auto)

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        known = cast("Mapping[str, object]", data)
        free = {name for name, field in cls.model_fields.items() if field.default is None}
        return {name: None if value == "auto" and name in free else value for name, value in known.items()}


class SizedOptions(Options):
    """Options of a method that draws whole programs."""

    size: Side = None
