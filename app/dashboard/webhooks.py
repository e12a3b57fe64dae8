"""Webhooks: who is told what happens to jobs; what was sent, and once more."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Form, Request
from starlette.responses import Response

from app.api import webhooks as rest
from app.api.deps import Services, Wired
from app.api.schemas.keys import DeliveryStatus, WebhookBody, WebhookPatch, WebhookRotation
from app.dashboard import web
from app.errors import ReprogError

_PAGE = 50
_DELIVERIES = 25

router = web.router()
_MAY = [web.visitor("write")]


@router.get("/webhooks", dependencies=_MAY)
def webhooks_page(request: Request, wired: Wired, after: str | None = None) -> Response:
    """Newest first, and the form for a new one."""
    return _page(request, wired, after)


def _page(
    request: Request, wired: Services, after: str | None = None, made: dict[str, Any] | None = None,
    problem: ReprogError | None = None,
) -> Response:  # fmt: skip
    page = rest.list_webhooks(wired, _PAGE, after or None)
    code = 200 if problem is None else problem.status
    return web.render(request, "webhooks.html", code, page=page, made=made, problem=problem)


@router.post("/webhooks", dependencies=_MAY)
def create(
    request: Request,
    wired: Wired,
    url: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    events: Annotated[str, Form()] = "",
) -> Response:
    """A new one; its secret is on this one page."""
    try:
        body = web.body(WebhookBody, _given(url, name, events))
        return _page(request, wired, made=rest.create_webhook(body, Response(), wired))
    except ReprogError as error:
        return _page(request, wired, problem=error)


def _given(url: str, name: str, events: str) -> dict[str, Any]:
    given: dict[str, Any] = {"url": url.strip(), "name": name.strip()}
    given["events"] = [one.strip() for one in events.split(",") if one.strip()]
    return {key: value for key, value in given.items() if value}


@router.get("/webhooks/{webhook_id}", dependencies=_MAY)
def webhook_page(
    webhook_id: str,
    request: Request,
    wired: Wired,
    after: str | None = None,
    status: DeliveryStatus | None = None,
) -> Response:
    """One, with its deliveries."""
    return _one(request, wired, rest.get_webhook(webhook_id, wired), after, status)


def _one(
    request: Request, wired: Services, found: dict[str, Any], after: str | None = None,
    status: DeliveryStatus | None = None,
) -> Response:  # fmt: skip
    sent = rest.list_deliveries(found["id"], wired, _DELIVERIES, after or None, status)
    return web.render(request, "webhook.html", webhook=found, sent=sent, status=status)


@router.post("/webhooks/{webhook_id}/rotate", dependencies=_MAY)
def rotate(
    webhook_id: str, request: Request, wired: Wired, keep_hours: Annotated[float | None, Form()] = None
) -> Response:
    """A new secret, on this one page."""
    given = {"keep_hours": keep_hours} if keep_hours is not None else {}
    return _one(request, wired, rest.rotate_webhook(webhook_id, wired, web.body(WebhookRotation, given)))


@router.post("/webhooks/{webhook_id}/change", dependencies=_MAY)
def change(
    webhook_id: str,
    wired: Wired,
    url: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    events: Annotated[str, Form()] = "",
    enabled: Annotated[str, Form()] = "",
) -> Response:
    """Another name, address or filter; off and on."""
    given = _given(url, name, events) | ({"enabled": enabled} if enabled else {})
    rest.change_webhook(webhook_id, web.body(WebhookPatch, given), wired)
    return web.see(f"/webhooks/{webhook_id}")


@router.post("/webhooks/{webhook_id}/test", dependencies=_MAY)
async def test(webhook_id: str, wired: Wired) -> Response:
    """Send a `webhook.test`; its line says what came of it."""
    await rest.test_webhook(webhook_id, wired)
    return web.see(f"/webhooks/{webhook_id}")


@router.post("/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", dependencies=_MAY)
def redeliver(webhook_id: str, delivery_id: str, wired: Wired) -> Response:
    """Once more, under the same id."""
    rest.redeliver(webhook_id, delivery_id, wired)
    return web.see(f"/webhooks/{webhook_id}")


@router.post("/webhooks/{webhook_id}/delete", dependencies=_MAY)
def delete(webhook_id: str, wired: Wired) -> Response:
    """With its deliveries."""
    rest.delete_webhook(webhook_id, wired)
    return web.see("/webhooks")
