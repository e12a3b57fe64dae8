"""Pages of lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import BeforeValidator

Record = TypeVar("Record")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Limit = Annotated[int, Query(ge=1, le=100, description="Items on a page.")]
After = Annotated[
    str | None, Query(max_length=64, description="`next_cursor` of the page before; absent: the first page.")
]
Number = Annotated[int, Query(ge=0, le=2**53, description="Only items after this number.")]


def _rfc3339(given: object) -> object:
    """Only text in the form of a time: the parser would take any number for seconds since 1970."""
    if isinstance(given, str) and not _TIME.match(given):
        raise ValueError("is no RFC 3339 time, like 2026-01-31T12:00:00Z")
    return given


Moment = Annotated[datetime, BeforeValidator(_rfc3339)]


def seconds(given: datetime | None) -> float | None:
    """UTC epoch seconds; a time without a zone is UTC."""
    if given is None:
        return None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def cell(value: object) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def page(
    records: Sequence[Record],
    limit: int,
    view: Callable[[Record], dict[str, Any]],
    cursor: Callable[[Record], object],
) -> dict[str, Any]:
    """`records` were asked for with limit + 1: the one too many says that there is more."""
    shown, more = records[:limit], len(records) > limit
    return {
        "object": "list",
        "data": [view(record) for record in shown],
        "has_more": more,
        "next_cursor": str(cursor(shown[-1])) if more else None,
    }
