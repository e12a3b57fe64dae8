"""Which hosts we may be sent to: provider URLs come from users, and must not reach our own network.

Checked twice: when a URL is given (a clear answer to the user) and at every connect, on the very address that
is dialled, so a name that resolves differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from app.errors import BadRequest, Forbidden

_HINT = "Set REPROG_ALLOW_PRIVATE_HOSTS=true if this service may call addresses of its own network."
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]


class PrivateAddress(OSError):
    """A connection to a private address was refused before it was dialled."""


def check_url(url: str, allow_private: bool, *, param: str = "base_url", query: bool = False) -> None:
    """Raises BadRequest for what is no plain http(s) URL, Forbidden (`private_host`) for a host that is, or
    resolves to, a private address. Resolves the name: call it in a thread. A name that does not resolve
    passes; connecting to it will fail. `query`: a query is allowed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadRequest(f"{url!r} is not a URL: {error}", param=param) from error
    if parts.scheme not in ("http", "https") or not host:
        raise BadRequest("The URL starts with https:// or http:// and a host.", param=param)
    if parts.username is not None or (parts.query and not query) or parts.fragment:
        raise BadRequest(
            f"The URL holds no user name,{'' if query else ' query'} or fragment.",
            param=param,
            hint=None if query else "The key belongs in `secret`.",
        )
    if allow_private:
        return
    if any(is_private(address) for address in _addresses(host, port)):
        raise Forbidden(
            f"{host} is, or resolves to, a private address.", code="private_host", hint=_HINT, param=param
        )


def is_public(url: str) -> bool:
    """Whether `url` is a stranger's: its host is, or resolves to, a public address, or does not resolve here.
    Resolves the name: call it in a thread."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    found = list(_addresses(host, parts.port))
    return not found or not all(is_private(address) for address in found)


def _addresses(host: str, port: int | None) -> Iterable[IPAddress]:
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def is_private(address: IPAddress) -> bool:
    """Whether `address` is anything but a public unicast address, looking through IPv6 transition forms."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(inner)
    return not address.is_global or address.is_multicast


def socket_factory(allow_private: bool) -> Callable[[AddressInfo], socket.socket]:
    """Makes the sockets of an HTTP client; raises PrivateAddress instead of dialling a private address."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, sockaddr = info
        address = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
        if not allow_private and is_private(address):
            raise PrivateAddress(f"{address} is a private address")
        return socket.socket(family, kind, protocol)

    return make
