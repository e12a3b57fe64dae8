"""What all wire shapes share: bodies, pages, times and names."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.methods.options import Exact
from app.storage.keys import SCOPES

Item = TypeVar("Item")
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]  # RFC 3339, UTC
Name = Annotated[str, Field(min_length=1, max_length=200)]
Scope = Literal["read", "write", "spend", "predict", "admin"]
EndpointName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
assert set(SCOPES) == set(Scope.__args__)


class Body(Exact):
    """A request: a member we do not know is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[Item]):
    """One page of a list; `next_cursor` goes into `after`."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
    next_cursor: str | None
