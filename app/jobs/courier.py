"""Sends webhook deliveries, signed as Standard Webhooks 1.0 says: at least once, again until it works or the
last try is over. One in each process; they share the work."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable, Sequence

import orjson

from app.contracts import WireRequest
from app.errors import ReprogError
from app.gateway.client import Client
from app.jobs.progress import rfc3339
from app.storage.webhooks import Delivery, Webhooks

log = logging.getLogger(__name__)

#: Seconds between tries: about three days in all.
SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
REPLY_SECONDS = 20.0
AT_ONCE = 8
_LOOK_EVERY = 1.0
_PRUNE_EVERY = 3600.0


def sign(secrets: Sequence[str], message_id: str, at: int, body: bytes) -> str:
    """The `webhook-signature` header: HMAC-SHA256 of `id.timestamp.body` under the bytes of each `whsec_...`;
    a receiver takes the message when one of them fits."""
    signed = f"{message_id}.{at}.".encode() + body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    made = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    return " ".join("v1," + one for one in made)


class Courier:
    """`start` it, `close` it. A delivery under way at the end is sent again by the next process."""

    def __init__(
        self,
        webhooks: Webhooks,
        *,
        allow_private: bool,
        schedule: Sequence[float] = SCHEDULE,
        hourly: Sequence[Callable[[], object]] = (),
    ) -> None:
        self._hourly = (webhooks.prune, *hourly)  # what grows old is forgotten between two looks
        self._webhooks, self._allow_private, self._schedule = webhooks, allow_private, schedule
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_LOOK_EVERY + 2)

    def _work(self) -> None:
        asyncio.run(self._keep_sending())

    async def _keep_sending(self) -> None:
        pruned = -_PRUNE_EVERY
        async with Client(allow_private=self._allow_private, total_seconds=REPLY_SECONDS) as client:
            while not self._stopping.is_set():
                sent = 0
                try:
                    if time.monotonic() - pruned > _PRUNE_EVERY:
                        for prune in self._hourly:
                            await asyncio.to_thread(prune)
                        pruned = time.monotonic()
                    sent = await self.send_due(client)
                except Exception:  # the database may be away for a while
                    log.exception("sending webhooks failed")
                if not sent:
                    await asyncio.to_thread(self._stopping.wait, _LOOK_EVERY)

    async def send_due(self, client: Client) -> int:
        """Send what is due now; returns how many were."""
        due = await asyncio.to_thread(self._webhooks.claim, AT_ONCE)
        await asyncio.gather(*(self._send(client, delivery) for delivery in due))
        return len(due)

    async def _send(self, client: Client, delivery: Delivery) -> None:
        status: int | None = None
        try:
            request = await asyncio.to_thread(self._request, delivery)
            status = (await client.send(request)).status
            error = None if 200 <= status < 300 else f"The receiver answered {status}."
        except ReprogError as refused:
            error = refused.detail
        last = delivery.attempts > len(self._schedule) or status == 410  # 410: the receiver is gone for good
        again = None if last else self._schedule[delivery.attempts - 1]
        await asyncio.to_thread(
            self._webhooks.settle, delivery, http_status=status, error=error, again_in=again
        )
        if status == 410:
            log.warning("webhook %s: the receiver is gone, switched off", delivery.webhook_id)
            await asyncio.to_thread(self._webhooks.edit, delivery.webhook_id, {"enabled": 0})
        elif error is not None:
            log.info("webhook %s: delivery %s failed: %s", delivery.webhook_id, delivery.id, error)

    def _request(self, delivery: Delivery) -> WireRequest:
        hook, secrets = self._webhooks.get(delivery.webhook_id), self._webhooks.secrets(delivery.webhook_id)
        told = {
            "type": delivery.type,
            "timestamp": rfc3339(delivery.created_at),
            "data": delivery.payload,
        }
        body, at = orjson.dumps(told), int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(at),
            "webhook-signature": sign(secrets, delivery.id, at, body),
        }
        return WireRequest("POST", hook.url, headers, body)
