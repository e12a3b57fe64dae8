"""/v1/audit: who changed and spent what. The lines are written by `Recorder`, whatever the route."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import auth, views
from app.api.deps import Services, Wired
from app.api.lists import Limit, Moment, Number, cell, page, seconds
from app.api.problems import declared
from app.api.schemas.base import Page
from app.api.schemas.keys import AuditView
from app.jobs.spec import micros
from app.storage.audit import AuditLine

log = logging.getLogger(__name__)

_READ_METHODS = ("GET", "HEAD", "OPTIONS")
_READS = ("quote_job",)  # asked by POST, changes nothing
_COLUMNS = ("id", "at", "key_id", "action", "resource", "request_id", "status", "amount", "currency")
_BATCH = 500
_ID = Annotated[str | None, Query(max_length=40)]

router = APIRouter(prefix="/v1/audit", tags=["operations"], responses=declared())


@router.get(
    "",
    response_model=Page[AuditView],
    dependencies=[auth.needs("admin")],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def list_audit(
    wired: Wired,
    limit: Limit = 20,
    after: Number | None = None,
    key_id: _ID = None,
    action: Annotated[str | None, Query(max_length=60, description="As in the lines.")] = None,
    since: Annotated[Moment | None, Query(description="RFC 3339; from this time on.")] = None,
    until: Annotated[Moment | None, Query(description="RFC 3339; before this time.")] = None,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Or Accept: text/csv.")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Any:  # noqa: ANN401
    """Every call that is no read, newest first: which key, what, when, how it ended, what the call itself
    spent. CSV has all lines at once."""
    only = {name: value for name, value in (("key_id", key_id), ("action", action)) if value is not None}
    asked: dict[str, Any] = {"only": only, "since": seconds(since), "until": seconds(until)}
    if format == "csv" or (format is None and accept.lower().startswith("text/csv")):
        named = {"Content-Disposition": 'attachment; filename="audit.csv"'}
        return StreamingResponse(_csv(wired, asked), 200, named, "text/csv; charset=utf-8")
    found = wired.audit.list(after, limit + 1, **asked)
    return page(found, limit, views.audit, lambda line: line.id)


def _csv(wired: Services, asked: dict[str, Any]) -> Iterator[str]:
    yield ",".join(_COLUMNS) + "\n"
    after: int | None = None
    while lines := wired.audit.list(after, _BATCH, **asked):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(_row(line) for line in lines)
        yield out.getvalue()
        after = lines[-1].id


def _row(line: AuditLine) -> list[str]:
    row = views.audit(line)
    row |= row["cost"] or {}
    return [cell(row.get(name)) for name in _COLUMNS]


class Recorder:
    """ASGI middleware: a line for every answer to an identified caller that is no read. An answer is held
    back until its line is written, so nobody has an answer that the log does not know."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READ_METHODS:
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await _record(scope, message)
            await send(message)

        await self._app(scope, receive, answer)


async def _record(scope: Scope, start: Message) -> None:
    wired: Services = scope["app"].state.services
    local = auth.LOCAL if wired.settings.auth == "off" else None
    caller = scope["state"].get("caller", local)
    route = scope.get("route")
    if caller is None or route is None or route.name in _READS:
        return
    headers = Headers(raw=start["headers"])
    cost, _, currency = headers.get("x-cost", "").partition(" ")
    page = "" if getattr(route, "include_in_schema", True) else "page."
    try:
        written = wired.audit.add(
            key_id=caller.id,
            action=page + route.name,
            resource=headers.get("location", "") if start["status"] == 201 else scope["path"],
            request_id=scope["state"]["request_id"],
            status=start["status"],
            cost_micros=micros(cost) if cost else 0,
            currency=currency or None,
        )
        await asyncio.wrap_future(written)
    except Exception:  # what was done is done: the caller must hear of it
        log.exception("request %s: no audit line could be written", scope["state"]["request_id"])
