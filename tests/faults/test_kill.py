"""kill -9, at random and at every named point: the bill, the caps and the programs do not notice."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from fault_crew import Crew, crew, race, views
from fault_source import Source, running_source


def without_faults(url: str, folder: Path, jobs: list[dict[str, Any]]) -> list[bytes]:
    """The programs of these jobs when nothing dies."""
    with running_source() as source, crew(url, folder, source, 1) as calm:
        made = [calm.job(**job) for job in jobs]
        calm.wait(made)
        calm.check(made)
        return calm.programs(made)


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


def test_killed_at_random(database_url: str, tmp_path: Path, source: Source, record_property: Any) -> None:
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    chance = random.Random(seed)
    source.delay = lambda n: 0.05
    free = [{"seed": n, **(race() if n % 2 else views())} for n in range(4)]
    with crew(database_url, tmp_path / "faults", source, 2) as team:
        jobs = [team.job(**job) for job in free]
        capped = [team.job(100, cap=100, **race()), team.job(101, queries=90, **views())]
        kills = kill_at_random(team, jobs + capped, 8, chance, 60)
        team.wait(jobs + capped, 60)
        record_property("kills", kills)
        print(f"{kills} kills, {source.bill} billed, {team.unknown()} unknown")
        team.check(jobs + capped)
        assert all(record.status == "succeeded" for record in map(team.get, jobs + capped)), team.story(
            jobs + capped
        )
        learned = team.programs(jobs)
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert learned == without_faults(calm, tmp_path / "calm", free)  # I5
