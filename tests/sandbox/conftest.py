"""One sandbox on a loopback port for all tests here; each test has a key, so rates and a bill of its own."""

import itertools
from collections.abc import Iterator

import httpx
import pytest
from sandbox_client import Client

from app.sandbox.server import SandboxConfig, running

_numbers = itertools.count()


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    with running(SandboxConfig(size=128, workers=2)) as url:
        yield url


@pytest.fixture
def client(base_url: str) -> Iterator[Client]:
    with httpx.Client(base_url=base_url, timeout=30) as http:
        http.delete("/faults").raise_for_status()
        yield Client(http, f"sandbox-{next(_numbers)}")
        http.delete("/faults")
