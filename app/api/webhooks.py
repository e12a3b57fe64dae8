"""/v1/webhooks: who is told what happens to jobs. Signed as Standard Webhooks 1.0 says."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from app.api import auth, views
from app.api.deps import Wired
from app.api.lists import After, Limit, page
from app.api.problems import declared, storable
from app.api.schemas.base import Page
from app.api.schemas.keys import (
    DeliveryStatus,
    DeliveryView,
    NewWebhook,
    WebhookBody,
    WebhookPatch,
    WebhookRotation,
    WebhookView,
)

_LOOK_EVERY = 0.2  # seconds
_TEST_SECONDS = 10.0

router = APIRouter(
    prefix="/v1/webhooks", tags=["webhooks"], responses=declared(), dependencies=[auth.needs("write")]
)


@router.post("", status_code=201, response_model=NewWebhook)
def create_webhook(body: WebhookBody, response: Response, wired: Wired) -> dict[str, Any]:
    """Tell `url` of events from now on. The secret that signs is in this answer and nowhere else."""
    storable(body)
    wired.check_webhook(body.url)
    record, secret = wired.webhooks.create(body.name, body.url, list(dict.fromkeys(body.events)))
    response.headers["Location"] = f"/v1/webhooks/{record.id}"
    return {**views.webhook(record), "secret": secret}


@router.get("", response_model=Page[WebhookView])
def list_webhooks(wired: Wired, limit: Limit = 20, after: After = None) -> dict[str, Any]:
    """Newest first."""
    return page(wired.webhooks.list(after, limit + 1), limit, views.webhook, lambda record: record.id)


@router.get("/{webhook_id}", response_model=WebhookView)
def get_webhook(webhook_id: str, wired: Wired) -> dict[str, Any]:
    """One webhook. Its secret is never shown."""
    return views.webhook(wired.webhooks.get(webhook_id))


@router.patch("/{webhook_id}", response_model=WebhookView)
def change_webhook(webhook_id: str, body: WebhookPatch, wired: Wired) -> dict[str, Any]:
    """Another name, address or filter; off and on. What is due while it is off waits."""
    storable(body)
    if body.url is not None:
        wired.check_webhook(body.url)
    values = body.model_dump(exclude_none=True)
    if "enabled" in values:
        values["enabled"] = int(values["enabled"])
    return views.webhook(wired.webhooks.edit(webhook_id, values))


@router.post("/{webhook_id}/rotate", response_model=NewWebhook)
def rotate_webhook(
    webhook_id: str, wired: Wired, body: Annotated[WebhookRotation | None, Body()] = None
) -> dict[str, Any]:
    """A new secret, in this answer and nowhere else. Until `old_secret_until` messages carry the signatures
    of both, so that no receiver misses one while it changes over."""
    keep = (body or WebhookRotation()).keep_hours
    record, secret = wired.webhooks.rotate(webhook_id, keep * 3600)
    return {**views.webhook(record), "secret": secret}


@router.delete("/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: str, wired: Wired) -> None:
    """With its deliveries, those that are due included."""
    wired.webhooks.delete(webhook_id)


@router.post("/{webhook_id}/test", response_model=DeliveryView)
async def test_webhook(webhook_id: str, wired: Wired) -> dict[str, Any]:
    """Send a `webhook.test`. The answer comes with the first try's outcome, or after ten seconds."""
    made = await asyncio.to_thread(wired.webhooks.test, webhook_id)
    until = time.monotonic() + _TEST_SECONDS
    while made.status == "pending" and made.error is None and time.monotonic() < until:
        if wired.closing.is_set():
            break
        await asyncio.sleep(_LOOK_EVERY)
        made = await asyncio.to_thread(wired.webhooks.delivery, webhook_id, made.id)
    return views.delivery(made)


@router.get("/{webhook_id}/deliveries", response_model=Page[DeliveryView])
def list_deliveries(
    webhook_id: str,
    wired: Wired,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[DeliveryStatus | None, Query()] = None,
) -> dict[str, Any]:
    """Newest first, for a month."""
    found = wired.webhooks.deliveries(webhook_id, after, limit + 1, status)
    return page(found, limit, views.delivery, lambda delivery: delivery.id)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", response_model=DeliveryView)
def redeliver(webhook_id: str, delivery_id: str, wired: Wired) -> dict[str, Any]:
    """Send it once more, under the same id, whatever came of it before."""
    return views.delivery(wired.webhooks.redeliver(webhook_id, delivery_id))
