"""Provider URLs must not reach our own network."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from app.errors import BadRequest, Forbidden
from app.gateway.guard import PrivateAddress, check_url, is_private, socket_factory


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fd00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_private(address: str) -> None:
    assert is_private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public(address: str) -> None:
    assert not is_private(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8900/x", "http://localhost", "https://[::1]/", "http://169.254.169.254/latest",
        "http://0x7f000001/", "http://2130706433/", "http://127.1/",
    ],
)  # fmt: skip
def test_private_hosts_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(Forbidden) as refused:
        check_url(url, False)
    assert refused.value.code == "private_host"
    assert "REPROG_ALLOW_PRIVATE_HOSTS" in str(refused.value.hint)
    check_url(url, True)


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example", "file:///etc/passwd", "a.example", "http://", "https://u:p@a.example", "http://a.example/?k=1",
     "http://a.example/#f", "http://[::1", "http://a.example:99999"],
)  # fmt: skip
def test_what_is_no_plain_url(url: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_url(url, True)
    assert refused.value.param == "base_url"


def test_one_private_address_among_many_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, 1, 6, "", (ip, 443)) for ip in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Forbidden):
        check_url("https://rebind.example", False)


def test_a_name_that_does_not_resolve_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    check_url("https://nowhere.example", False)


def test_sockets_are_checked_at_connect() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))
    with pytest.raises(PrivateAddress):
        socket_factory(False)(info)
    socket_factory(True)(info).close()
    socket_factory(False)((*info[:4], ("8.8.8.8", 80))).close()
