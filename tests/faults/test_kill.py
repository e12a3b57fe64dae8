"""kill -9, at random and at every named point: the bill, the caps and the programs do not notice."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_crew import Crew, crew, race, views
from fault_source import Source, running_source

CALM: dict[str, Any] = {
    "seed": 1,
    **race(),
}  # one job that many tests learn, so that it is learned calmly once
_calm: dict[str, bytes] = {}  # what a job learns when nothing dies: the same whichever others run beside it


def without_faults(url: str, folder: Path, jobs: list[dict[str, Any]]) -> list[bytes]:
    """The programs of these jobs when nothing dies."""
    names = [json.dumps(job, sort_keys=True) for job in jobs]
    new = {name: job for name, job in zip(names, jobs, strict=True) if name not in _calm}
    if new:
        with running_source() as source, crew(url, folder, source, 1) as calm:
            made = [calm.job(**job) for job in new.values()]
            calm.wait(made, 20 * len(made) + 60)
            calm.check(made)
            _calm.update(zip(new, calm.programs(made), strict=True))
    return [_calm[name] for name in names]


def kill_at_random(team: Crew, jobs: list[str], kills: int, chance: random.Random, seconds: float) -> int:
    """Kill workers in the middle of their requests, each started again in its slot, until `kills` are done or
    all jobs are over."""
    until, done, seen = time.monotonic() + seconds, 0, 0
    while done < kills and not team.over(jobs):
        assert time.monotonic() < until, f"stuck: {team.story(jobs)}\n{team.tail()}"
        team.never_over()
        time.sleep(chance.uniform(0.0, 0.1))
        if team.source.requests >= seen + chance.randint(2, 12):
            seen = team.source.requests
            slot = chance.choice(list(team.workers))
            team.kill(slot)
            team.start(slot)
            done += 1
    return done


@pytest.mark.parametrize(
    ("kills", "workers", "jobs", "capped"),
    [(8, 2, 4, 2), pytest.param(200, 4, 15, 5, marks=pytest.mark.chaos)],
)
def test_killed_at_random(
    database_url: str,
    tmp_path: Path,
    source: Source,
    seed: int,
    figures: Callable[[str], None],
    kills: int,
    workers: int,
    jobs: int,
    capped: int,
) -> None:
    """No cap passed, nothing bought twice, nothing lost, no job stuck, the same programs."""
    chance = random.Random(seed)
    source.delay = lambda n: 0.05
    free = [{"seed": n, **(race() if n % 2 else views())} for n in range(jobs)]
    with crew(database_url, tmp_path / "faults", source, workers) as team:
        wide = [team.job(**job) for job in free]
        narrow = [team.job(100, cap=100, **race()), team.job(101, queries=90, **views())]
        narrow += [team.job(100 + n, cap=95, **race()) for n in range(2, capped)]
        done = kill_at_random(team, wide + narrow, kills, chance, 10 * kills + 60)
        while done < kills:  # the jobs were quicker: more of them
            free.append({"seed": 1000 + len(free), **race()})
            wide.append(team.job(**free[-1]))
            done += kill_at_random(team, wide, kills - done, chance, 10 * kills + 60)
        team.wait(wide + narrow, 120)
        team.check(wide + narrow)
        team.succeeded(wide)
        for job in narrow:  # every death may cost it money: then it says so
            assert team.get(job).status == "succeeded" or team.error(job) == "budget_exhausted", team.tail()
        learned = team.programs(wide)
        told = (
            f"{done} kills, {workers} workers, {len(wide + narrow)} jobs ({capped} at their cap), "
            f"{source.bill} billed, {team.unknown()} unknown, {source.requests} requests"
        )
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert learned == without_faults(calm, tmp_path / "calm", free)  # I5
    figures(told)
