"""What was spent, summed over the attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Engine, Integer, String, case, cast, func, select

from app.storage import tables
from app.storage.database import read

Group = Literal["job", "connection", "endpoint", "day", "key"]
_DAY = 86_400
_attempts, _connections = tables.attempts, tables.connections


@dataclass(frozen=True)
class Usage:
    """One group's figures in one currency. `group` is an id, or a day since 1970 as a number."""

    group: str
    currency: str
    requests: int
    billable_queries: int
    unknown_queries: int
    cost_micros: int


def usage(
    engine: Engine, group_by: Group, since: float | None = None, until: float | None = None
) -> list[Usage]:
    """Figures of requests sent in [since, until), UTC epoch seconds, by group."""
    c = _attempts.c
    group: ColumnElement[str] = {
        "job": c.scope,
        "endpoint": c.scope,
        "connection": c.connection_id,
        "day": cast(cast(func.floor(c.sent_at / _DAY), Integer), String),
        "key": c.payer,
    }[group_by].label("group")
    query = (
        select(
            group,
            _connections.c.currency,
            func.count().label("requests"),
            func.sum(c.billed).label("billable_queries"),
            func.sum(case((c.outcome == "unknown", c.billed), else_=0)).label("unknown_queries"),
            func.sum(c.billed * c.price_micros).label("cost_micros"),
        )
        .join(_connections, _connections.c.id == c.connection_id)
        .group_by("group", _connections.c.currency)
        .order_by("group", _connections.c.currency)
    )
    prefix = {"job": "job_", "endpoint": "ep_"}.get(group_by)
    if prefix is not None:
        query = query.where(c.scope.startswith(prefix, autoescape=True))
    if group_by == "key":
        query = query.where(c.payer.is_not(None))
    if since is not None:
        query = query.where(c.sent_at >= since)
    if until is not None:
        query = query.where(c.sent_at < until)
    with read(engine) as connection:
        return [
            Usage(row.group.partition(":")[0], row.currency, *(int(value) for value in row[2:]))
            for row in connection.execute(query)
        ]
