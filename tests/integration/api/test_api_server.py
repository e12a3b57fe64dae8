"""The protocol in front of the application, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from app.main import Protocol


@contextlib.asynccontextmanager
async def listening():
    config = uvicorn.Config(PlainTextResponse("hello"), http=Protocol, lifespan="off", access_log=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield await asyncio.open_connection(*server.sockets[0].getsockname())


@pytest.mark.parametrize("endless", [b"X: " + b"a" * 2**14, b"X: a\r\n" * 2**11], ids=["value", "many"])
async def test_headers_without_end_are_refused(endless: bytes) -> None:
    async with listening() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(16):
                writer.write(endless.rstrip(b"\r\n") if endless.count(b":") == 1 else endless)
                await writer.drain()
        assert (await reader.read(12)) == b"HTTP/1.1 400"
        writer.close()


async def test_a_long_body_and_the_next_request_are_answered() -> None:
    async with listening() as (reader, writer):
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"a" * 200_000)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(5) == b"hello"
        writer.close()
