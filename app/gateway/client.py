"""The one HTTP client that talks to providers: bytes out, bytes in, honest about what left."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from app.contracts import WireReply, WireRequest
from app.errors import Forbidden, NotSent, Unavailable
from app.gateway.guard import PrivateAddress, socket_factory

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it writes a line per request
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0  # between two pieces of the reply
TOTAL_SECONDS = 60.0
LARGEST_REPLY = 64 * 2**20  # bytes, decompressed

# Everything that can fail before a byte of the request is written; all other failures leave it unknown.
# The transport's own mapping cannot be used here: it calls a dropped connection a connect timeout.
_BEFORE_SENDING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ClientProxyConnectionError,
)


class Client:
    """One connection pool. Make it in the event loop that uses it; close it, or use `async with`.

    It follows no redirect (a key must not travel to another host), reads no proxy settings from the
    environment, and refuses private addresses unless they are allowed.
    """

    def __init__(
        self, *, allow_private: bool = False, connections: int = 100, total_seconds: float = TOTAL_SECONDS
    ) -> None:
        connector = aiohttp.TCPConnector(
            limit=connections,
            ttl_dns_cache=60,
            keepalive_timeout=4,  # less than common servers keep: no request on a connection that just closed
            ssl=httpx.create_ssl_context(trust_env=False),
            socket_factory=socket_factory(allow_private),
        )
        session = aiohttp.ClientSession(
            connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        self._total = total_seconds
        self._http = httpx.AsyncClient(
            transport=AiohttpTransport(client=session, trust_env=False),
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, pool=None),
            headers={"User-Agent": "reprog"},
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, request: WireRequest) -> WireReply:
        """Raises NotSent (certain not to be billed), Unavailable (unknown), Forbidden (private address)."""
        try:
            async with asyncio.timeout(self._total):
                async with self._http.stream(
                    request.method, request.url, headers=dict(request.headers), content=request.body
                ) as response:
                    body = await _read(response)
        except TimeoutError as error:
            raise Unavailable(f"No full reply within {self._total:g} s.", code="provider_timeout") from error
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as error:
            raise _failure(error) from error
        return WireReply(response.status_code, _headers(response), body)


async def _read(response: httpx.Response) -> bytes:
    parts, size = list[bytes](), 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > LARGEST_REPLY:
            raise Unavailable(f"The reply is larger than {LARGEST_REPLY} bytes.")
        parts.append(part)
    return b"".join(parts)


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _failure(error: BaseException) -> Unavailable | Forbidden:
    """What a failed exchange means for the bill. The text names the fault, never the request."""
    cause = error.__cause__ or error
    if isinstance(cause, aiohttp.ClientConnectorError) and isinstance(cause.os_error, PrivateAddress):
        return Forbidden(
            f"Refused to connect: {cause.os_error}.",
            code="private_host",
            hint="Set REPROG_ALLOW_PRIVATE_HOSTS=true if this service may call its own network.",
        )
    if isinstance(cause, _BEFORE_SENDING) or isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return NotSent(f"The provider cannot be reached ({type(cause).__name__}).")
    if isinstance(cause, TimeoutError):
        return Unavailable("The provider stopped answering.", code="provider_timeout")
    return Unavailable(f"The connection broke before a full reply ({type(cause).__name__}).")
