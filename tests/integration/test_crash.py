"""kill -9 at every named point: no settled answer is lost, the ledger covers the bill, and what comes after
buys only what is missing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from gateway_house import House, images
from stub_provider import Stub, expected

from app.gateway import faults
from app.gateway.client import Client
from app.storage.database import migrate

SCRIPT = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from stub_provider import Stub
from gateway_house import House, images
from app.gateway import faults
from app.gateway.client import Client

async def main():
    stub = Stub()
    stub.url = {stub!r}
    faults.arm({point!r}, 3)
    async with Client(allow_private=True) as client:
        await House({url!r}, stub, client).gateway(concurrency=1).ask(images(20))

asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["after_intent", "after_send", "after_answer", "after_settle"])
async def test_kill_at_a_named_point(sqlite_url: str, point: str) -> None:
    migrate(sqlite_url)
    pixels = images(20)
    async with Stub().serve() as stub, Client(allow_private=True) as client:
        house = House(sqlite_url, stub, client)
        script = SCRIPT.format(
            tests=str(Path(__file__).parents[1]), stub=stub.url, point=point, url=sqlite_url
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        assert await process.wait() == -signal.SIGKILL
        scored = stub.bill
        assert scored == (8 if point == "after_intent" else 12)

        open_before = [line for line in house.ledger.list_attempts("job_1") if line.outcome == "open"]
        assert len(open_before) == (0 if point == "after_settle" else 1)
        assert house.ledger.recover("job_1", 2) == len(open_before)
        cost = house.ledger.cost("job_1")
        assert cost.queries_spent == 12 >= stub.bill
        assert cost.unknown_queries == 4 * len(open_before)

        answers = await house.gateway(fence=2).ask(pixels)
        np.testing.assert_array_equal(answers.scores, expected(pixels))
        known_at_crash = 12 if point == "after_settle" else 8
        assert answers.cached == known_at_crash
        assert stub.bill == scored + 20 - known_at_crash
        house.settled()
        house.engine.dispose()


def test_inert_unless_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
    monkeypatch.setattr(faults, "_armed", {})
    faults.crash_point("after_settle")
    assert killed == []
    faults.arm("after_settle", 2)
    faults.crash_point("after_send")
    faults.crash_point("after_settle")
    assert killed == []
    faults.crash_point("after_settle")
    assert killed == [signal.SIGKILL]
