"""What the client says about bytes that left or did not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.contracts import WireRequest
from app.errors import Forbidden, NotSent, Unavailable
from app.gateway import client as module
from app.gateway.client import Client

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: bytes | None, *, hang: bool = False) -> AsyncGenerator[str]:
    """Reads a request's head, then writes `answer` and closes, resets (None) or hangs."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            writer.transport.abort()
            return
        writer.write(answer)
        if hang:
            await asyncio.sleep(5)
        writer.close()

    running = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/x"
    finally:
        running.close()


def post(url: str) -> WireRequest:
    return WireRequest("POST", url, {"Authorization": "Key secret"}, b"{}")


async def send(url: str, allow_private: bool = True, **options: float) -> tuple[int, bytes]:
    async with Client(allow_private=allow_private, **options) as client:
        reply = await client.send(post(url))
        assert all(name == name.lower() for name in reply.headers)
        return reply.status, reply.body


async def test_reply_in_full() -> None:
    async with server(b"HTTP/1.1 207 Multi\r\nX-A: b\r\nContent-Length: 2\r\n\r\nhi") as url:
        assert await send(url) == (207, b"hi")


async def test_redirects_are_not_followed() -> None:
    async with server(b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n") as url:
        assert (await send(url))[0] == 302


async def test_refused_connection_is_certain_not_to_be_billed() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(NotSent) as caught:
            await send(f"http://127.0.0.1:{port}/")
    assert caught.value.billed is False
    assert "secret" not in str(caught.value)


async def test_unknown_host_is_not_sent() -> None:
    with pytest.raises(NotSent):
        await send("http://nowhere.invalid/")


@pytest.mark.parametrize(
    "answer",
    [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", b"garbage\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi"],
)  # fmt: skip
async def test_broken_after_sending_is_unknown(answer: bytes | None) -> None:
    async with server(answer) as url:
        with pytest.raises(Unavailable) as caught:
            await send(url)
    assert type(caught.value) is Unavailable
    assert caught.value.billed is None


async def test_a_reply_that_does_not_end_is_unknown() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", hang=True) as url:
        with pytest.raises(Unavailable) as caught:
            await send(url, total_seconds=0.2)
    assert (caught.value.code, caught.value.billed) == ("provider_timeout", None)


async def test_a_reply_without_bounds_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_REPLY", 1000)
    async with server(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000) as url:
        with pytest.raises(Unavailable, match="larger"):
            await send(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses_are_refused_at_connect(host: str) -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as url:
        with pytest.raises(Forbidden) as caught:
            await send(url.replace("127.0.0.1", host), allow_private=False)
    assert caught.value.code == "private_host"


async def test_proxy_settings_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as url:
        assert (await send(url))[0] == 200
