"""`reprog serve`: the API, and a worker beside it unless REPROG_WORKER=false."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import dashboard, redaction
from app.api.application import create_app
from app.api.auth import refuse_open_door
from app.settings import Settings
from app.wiring import House

__all__ = ["create_app", "serve"]

_MOST_HEAD = 2**16  # bytes of a request before its body
_STREAMS_END = 5  # seconds open streams and requests get at the end


def serve(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT. Raises BadRequest for settings that would leave the door open."""
    refuse_open_door(settings.auth, settings.host)
    redaction.install()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    house = House(settings)
    if settings.auth == "keys" and (key := house.keys.ensure_first()) is not None:
        print(f"The first key, shown this once (scope admin): {key}", file=sys.stderr, flush=True)
    app = create_app(house.services(), lifespan=_lifespan(house))
    dashboard.mount(app)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STREAMS_END,
    )
    server = _Server(config, house)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(3)


class Protocol(HttpToolsProtocol):
    """uvicorn's quick HTTP/1.1, which by itself would take in headers without end."""

    _head: int | None = None  # bytes that came since the head began; None: a body, or nothing, is coming

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > _MOST_HEAD and not self.transport.is_closing():
                self.send_400_response("The headers are too large.")


class _Server(uvicorn.Server):
    """Tells the house of the end at once: streams and long polls answer, the worker stops asking."""

    def __init__(self, config: uvicorn.Config, house: House) -> None:
        super().__init__(config)
        self._house = house

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._house.stop()
        super().handle_exit(sig, frame)


def _lifespan(house: House):
    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncGenerator[None]:
        try:
            await asyncio.to_thread(house.watch)
            if house.settings.worker:
                await asyncio.to_thread(house.launch)
            house.courier.start()
            await asyncio.to_thread(app.openapi)  # made once: the first reader of /docs need not wait
            gc.collect()
            gc.freeze()  # routes, schemas, statements stay: looking at them again costs a seventh of the time
            yield
            await house.predictor.close()
        finally:
            await asyncio.to_thread(house.close)

    return live
