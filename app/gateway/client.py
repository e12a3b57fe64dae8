"""The one HTTP client that talks to providers: bytes out, bytes in, honest about what left."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from types import TracebackType
from typing import Self

import aiohttp
import httpx
from yarl import URL

from app import telemetry
from app.contracts import WireReply, WireRequest
from app.errors import Forbidden, NotSent, Unavailable
from app.gateway.guard import PrivateAddress, socket_factory

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0  # between two pieces of the reply
TOTAL_SECONDS = 60.0
LARGEST_REPLY = 64 * 2**20  # bytes, decompressed

# Everything that can fail before a byte of the request is written; all other failures leave it unknown.
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
        self._total = total_seconds
        self._http = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "reprog"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.close()

    async def send(self, request: WireRequest) -> WireReply:
        """Raises NotSent (certain not to be billed), Unavailable (unknown), Forbidden (private address)."""
        host = request.url.partition("//")[2].partition("/")[0]
        with telemetry.span(f"{request.method} provider", server__address=host) as span:
            reply = await self._exchange(request)
            span.set_attribute("http.response.status_code", reply.status)
        return reply

    async def _exchange(self, request: WireRequest) -> WireReply:
        limit = asyncio.timeout(self._total)
        try:
            async with limit, self._http.request(
                request.method,
                _address(request.url),
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
            ) as response:  # fmt: skip
                body = await _read(response)
        except (httpx.InvalidURL, aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            if limit.expired():
                text = f"No full reply within {self._total:g} s."
                raise Unavailable(text, code="provider_timeout") from error
            raise _failure(error) from error
        return WireReply(response.status, _headers(response), body)


@lru_cache(maxsize=256)
def _address(url: str) -> URL:
    """Parsed once: a connection's requests go to one address."""
    return URL(str(httpx.URL(url)))


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = list[bytes](), 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LARGEST_REPLY:
            response.close()
            raise Unavailable(f"The reply is larger than {LARGEST_REPLY} bytes.")
        parts.append(part)
    return b"".join(parts)


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in response.headers.items():
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _failure(error: BaseException) -> Unavailable | Forbidden:
    """What a failed exchange means for the bill. The text names the fault, never the request."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PrivateAddress):
        return Forbidden(
            f"Refused to connect: {error.os_error}.",
            code="private_host",
            hint="Set REPROG_ALLOW_PRIVATE_HOSTS=true if this service may call its own network.",
        )
    if isinstance(error, (*_BEFORE_SENDING, httpx.InvalidURL)):
        return NotSent(f"The provider cannot be reached ({type(error).__name__}).")
    if isinstance(error, TimeoutError):
        return Unavailable("The provider stopped answering.", code="provider_timeout")
    return Unavailable(f"The connection broke before a full reply ({type(error).__name__}).")
