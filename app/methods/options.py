"""What a user may say about a method: one base for all option models."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Side = Annotated[
    int | None,
    Field(ge=8, le=1024, description="Side of the source image in pixels; null: the model's input size."),
]


def _says_auto(schema: dict[str, Any]) -> None:
    for shape in schema.get("properties", {}).values():
        if {"type": "null"} in shape.get("anyOf", []):
            shape["anyOf"].append({"const": "auto"})


def _kinds(annotation: object) -> frozenset[object]:
    """The plain types that an annotation lets through: unions, Annotated and Literal taken apart."""
    if get_origin(annotation) is Literal:
        return frozenset(type(one) for one in get_args(annotation))
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return frozenset[object]().union(*(_kinds(one) for one in inner))
    return frozenset((annotation,))


class Exact(BaseModel):
    """A model that takes true and false for no numbers, and numbers for neither: a cap `true` is not 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _as_json_says(cls, value: object, info: ValidationInfo) -> object:
        numbers = frozenset((int, float))
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool) and kinds & numbers and bool not in kinds:
            raise ValueError("is a number, not true or false")
        if type(value) in numbers and bool in kinds and not kinds & numbers:
            raise ValueError("is true or false, not a number")
        return value


class Options(Exact):
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
