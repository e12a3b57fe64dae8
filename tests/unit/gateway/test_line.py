"""How many requests may hold a reservation while they wait for their slot."""

from __future__ import annotations

import asyncio

from app.gateway.pace import Line

TENTH = 0.1  # seconds between slots


async def inside(line: Line, wanted: int) -> int:
    """How many of `wanted` get in while nobody leaves."""
    entered, over = 0, asyncio.Event()

    async def enter() -> None:
        nonlocal entered
        async with line:
            entered += 1
            await over.wait()

    tasks = [asyncio.create_task(enter()) for _ in range(wanted)]
    for _ in range(3):
        await asyncio.sleep(0)
    found = entered
    over.set()
    await asyncio.gather(*tasks)
    return found


async def test_it_widens_where_slots_were_there_first_and_stays_below_the_most() -> None:
    line = Line(3)
    assert await inside(line, 5) == 1
    line.waited(0.0, TENTH)
    assert await inside(line, 5) == 2
    for _ in range(9):
        line.waited(0.0, TENTH)
    assert await inside(line, 5) == 3


async def test_it_narrows_to_one_where_requests_wait_a_whole_interval() -> None:
    line = Line(4)
    for _ in range(9):
        line.waited(0.0, TENTH)
    line.waited(0.5 * TENTH, TENTH)  # neither too late nor too early
    assert await inside(line, 5) == 4
    async with line:  # also while somebody is in it
        for _ in range(9):
            line.waited(TENTH, TENTH)
    for _ in range(3):  # those that are over go as they leave
        async with line:
            pass
    assert await inside(line, 5) == 1


async def test_a_fast_rate_is_no_reason_to_narrow() -> None:
    line = Line(2)
    line.waited(0.0, 0.001)
    line.waited(0.004, 0.001)
    assert await inside(line, 3) == 2
