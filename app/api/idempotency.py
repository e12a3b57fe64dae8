"""`Idempotency-Key` on every POST: the first answer is kept and replayed, whatever the route."""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from typing import IO

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import auth, problems
from app.api.deps import Services
from app.errors import BadRequest, ReprogError
from app.storage.idempotency import StoredAnswer

_IN_MEMORY = 2**20
_CHUNK = 2**18
_LONGEST_KEY = 200
_BOUNDARY = re.compile(r'boundary="?([^";,\s]{1,200})')
_NOT_REPLAYED = (b"content-length", b"x-request-id", b"server-timing")


class IdempotencyKeys:
    """ASGI middleware. Only successes are kept: after a refusal or a fault the key may be used again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            await self._once(key, scope, receive, send)
        except ReprogError as error:
            await problems.render(scope, error)(scope, receive, send)

    async def _once(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not 1 <= len(key) <= _LONGEST_KEY or not key.isascii() or not key.isprintable():
            raise BadRequest(
                "The Idempotency-Key is not usable.",
                param="Idempotency-Key",
                hint=f"1 to {_LONGEST_KEY} printable ASCII characters, for example a UUID.",
            )
        wired: Services = scope["app"].state.services
        caller = (await auth.identify(Request(scope), wired)).id
        store = wired.idempotency
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as body:
            fingerprint = await _spool(scope, receive, body)
            first = await asyncio.to_thread(store.begin, caller, key, fingerprint)
            if first is not None:
                await _replay(first, send)
                return
            capture = _Capture()
            kept = False
            try:
                await self._app(scope, _reader(body, receive), capture.take)
                if kept := 200 <= capture.status < 300:
                    await asyncio.to_thread(store.finish, caller, key, capture.answer())
            finally:
                if not kept:
                    await asyncio.shield(asyncio.to_thread(store.release, caller, key))
        for message in capture.messages:  # only now: a client that heard an answer may ask for it again
            await send(message)


async def _spool(scope: Scope, receive: Receive, body: IO[bytes]) -> str:
    """Take in the body. Returns the request's fingerprint: method, path, query, kind and bytes."""
    kind, _, options = Headers(scope=scope).get("content-type", "").partition(";")
    head = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}\n{kind}\n"
    digest = hashlib.sha256(head.encode())
    boundary = _BOUNDARY.search(options)
    random = boundary[1].encode() if boundary else b""  # differs each time the same form is sent
    tail = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        await asyncio.to_thread(body.write, chunk)
        if random:
            chunk = (tail + chunk).replace(random, b"")
            cut = max(0, len(chunk) - len(random) + 1) if more else len(chunk)
            chunk, tail = chunk[:cut], chunk[cut:]
        digest.update(chunk)
    body.seek(0)
    return digest.hexdigest()


def _reader(body: IO[bytes], receive: Receive) -> Receive:
    """The spooled body as ASGI messages, then whatever the client does next."""
    over = False

    async def read() -> Message:
        nonlocal over
        if over:
            return await receive()
        chunk = await asyncio.to_thread(body.read, _CHUNK)
        over = len(chunk) < _CHUNK
        return {"type": "http.request", "body": chunk, "more_body": not over}

    return read


async def _replay(first: StoredAnswer, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in first.headers.items()]
    headers += [(b"idempotency-replayed", b"true"), (b"content-length", str(len(first.body)).encode())]
    await send({"type": "http.response.start", "status": first.status, "headers": headers})
    await send({"type": "http.response.body", "body": first.body})


class _Capture:
    """Holds an answer back."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.status = 0

    async def take(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.messages.append(message)

    def answer(self) -> StoredAnswer:
        pairs = [(n.lower(), v) for n, v in self.messages[0]["headers"]]
        headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in pairs if n not in _NOT_REPLAYED}
        return StoredAnswer(self.status, headers, b"".join(m.get("body", b"") for m in self.messages))
