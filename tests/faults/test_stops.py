"""Death at named points, frozen workers, users who change their mind, providers that misbehave."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from databases import freeze
from fault_crew import Crew, crew, race, until, views
from fault_source import Source
from test_kill import CALM, without_faults

from app.errors import Conflict, Unavailable
from app.jobs.revive import DOWN, Reviver
from app.storage import tables
from app.storage.database import read

POINTS = ("after_intent", "after_send", "after_answer", "after_settle")


def test_named_points(database_url: str, tmp_path: Path, source: Source) -> None:
    """A worker dies at each point in turn; what it did is bought again only where nobody can know."""
    with crew(database_url, tmp_path / "faults", source) as team:
        job = team.job(**CALM)
        for n, point in enumerate(POINTS):
            team.start(0, REPROG_FAULT=f"{point}:{3 + 2 * n}")
            team.workers[0].join(40)
            assert team.workers[0].exitcode == -signal.SIGKILL, team.tail()
            team.deaths.append(time.time())
            team.never_over()
        team.start(0)
        team.wait([job])
        team.check([job])
        outcomes = team.by_outcome()
        assert outcomes["unknown"] >= len(POINTS) - 1  # after_settle leaves its own request known
        assert team.unknown() > 0
        learned = team.programs([job])
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert learned == without_faults(calm, tmp_path / "calm", [CALM])


@pytest.mark.timeout(600)
def test_a_frozen_worker_can_write_and_spend_nothing(
    database_url: str, tmp_path: Path, source: Source
) -> None:
    """SIGSTOP past the lease: another worker finishes the job; then SIGCONT."""
    source.delay = lambda n: 0.1
    with crew(database_url, tmp_path / "faults", source, 1) as team:
        job = team.job(3, **race())
        until(lambda: source.requests >= 5)
        _freeze(team)
        team.deaths.append(time.time())
        team.start(1)
        team.wait([job], 400)
        before, billed, lines = team.get(job), source.bill, team.house.ledger.list_attempts(job, limit=10_000)
        team.signal(0, signal.SIGCONT)
        time.sleep(5)  # what it does now that it is awake
        assert team.get(job) == before
        after = team.house.ledger.list_attempts(job, limit=10_000)
        assert [line.id for line in after] == [line.id for line in lines]
        under_way = [line.images for line in lines if line.outcome == "unknown"]
        assert source.bill - billed <= sum(under_way)  # what was half sent when it froze: on the books, spent
        team.check([job])


def _freeze(team: Crew) -> None:
    pid, settings = team.workers[0].pid, team.house.settings
    assert pid is not None
    freeze(pid, settings.database(), settings.engine_database())


@pytest.mark.parametrize("changes", [20, pytest.param(500, marks=pytest.mark.chaos)])
def test_pause_resume_cancel_at_random(
    database_url: str,
    tmp_path: Path,
    source: Source,
    seed: int,
    figures: Callable[[str], None],
    changes: int,
) -> None:
    """Nothing is reserved for a job once a pause or cancel was answered, and the program is the same."""
    chance = random.Random(seed)
    source.delay = lambda n: 0.03
    with crew(database_url, tmp_path / "faults", source, 1) as team:
        jobs, done, started = [team.job(**CALM)], 0, time.monotonic()
        while done < changes:
            kept = jobs[-1]
            if team.get(kept).over:
                jobs.append(kept := team.job(11 + len(jobs), **race()))
            done += _change(team, kept, chance, cancel=len(jobs) > 1)
            assert time.monotonic() - started < 6 * changes + 120, team.story(jobs)
        for job in jobs:
            if team.get(job).status in ("paused", "pausing"):
                _resume(team, job)
        team.wait(jobs, 60)
        team.check(jobs)
        [learned] = team.programs(jobs[:1])
        told = f"{done} changes over {len(jobs)} jobs, {source.bill} billed, {team.unknown()} unknown"
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert [learned] == without_faults(calm, tmp_path / "calm", [CALM])
    figures(told)


def _change(team: Crew, job: str, chance: random.Random, cancel: bool) -> int:
    """Pause (or cancel), look that nothing new is reserved, resume. Returns how many changes were made."""
    time.sleep(chance.uniform(0.0, 0.4))
    gone = cancel and chance.random() < 0.1
    try:
        team.house.jobs.cancel(job) if gone else team.house.jobs.pause(job)
    except Conflict:
        return 0
    last = _last_attempt(team, job)
    time.sleep(chance.uniform(0.0, 0.5))
    assert _last_attempt(team, job) == last, "reserved after the pause was answered"
    if gone:
        return 1
    _resume(team, job)
    return 2


def _resume(team: Crew, job: str) -> None:
    try:
        team.house.jobs.resume(job)
    except Conflict:  # it was over before the pause
        return
    team.house.runner.enqueue(job)


def _last_attempt(team: Crew, job: str) -> int:
    a = tables.attempts.c
    with read(team.house.engine) as connection:
        return connection.execute(sa.select(sa.func.max(a.id)).where(a.scope == job)).scalar() or 0


def test_a_provider_that_misbehaves(database_url: str, tmp_path: Path, source: Source) -> None:
    """30 % of the requests fail, in every way there is; unknown outcomes are counted, and the program is the
    same. Two images cannot be read: they are named and left out, the others of their requests are scored."""
    faults = ("reset", "billed 500", "free 500", "truncated", "throttled", "throttled 0.2")
    chance = random.Random(7)
    plan = [chance.choice(faults) if chance.random() < 0.3 else None for _ in range(10_000)]
    source.fault = lambda n: plan[n]
    poisoned: list[bytes] = []

    def bad(png: bytes) -> int | None:
        if len(poisoned) < 2 and png not in poisoned and source.requests > 3:
            poisoned.append(png)
        return 30300 if png in poisoned else None

    source.bad = bad
    with crew(database_url, tmp_path / "faults", source, 1) as team:
        job = team.job(1, **views())
        team.wait([job], 90)
        record = team.get(job)
        assert record.status == "succeeded", team.story([job])
        team.never_over()
        assert team.unknown() > 0
        left_out = record.metrics["left_out"]
        assert len(left_out) == 2, left_out
        assert all(line["file"].endswith(".png") and line["code"] for line in left_out)
        told = [event.data for event in team.house.jobs.events(job) if event.type == "job.images_left_out"]
        assert sum(data["count"] for data in told) == 2


def test_a_provider_that_hangs(sqlite_url: str, tmp_path: Path, source: Source) -> None:
    """Requests that are never answered stall nobody beside them, and a worker may die waiting for them: they
    are counted as spent, asked again, and the program is the same."""
    hanging = (3, 12, 20)
    source.fault = lambda n: "hang" if n in hanging else None
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(**CALM)
        for n in hanging:
            until(lambda n=n: source.requests > n, 60)
            time.sleep(0.5)  # others are answered meanwhile
            team.kill(0)
            team.start(0)
        team.wait([job])
        team.never_over()
        assert team.unknown() >= 4 * len(hanging)
        learned = team.programs([job])
    calm = f"sqlite:///{tmp_path / 'calm.sqlite'}"
    assert learned == without_faults(calm, tmp_path / "calm", [CALM])


def test_a_provider_that_is_down_pauses_and_revives(tmp_path: Path, source: Source, sqlite_url: str) -> None:
    source.fault = lambda n: "free 500"
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(1)
        team.wait([job], 90, "paused")
        assert team.get(job).status_reason == DOWN
        reserved = team.house.ledger.cost(job)
        assert reserved.queries_reserved == 0
        down = Reviver(team.house.jobs, team.house.runner, _dead, first=0.0)
        assert down.look() == []
        source.fault = lambda n: None
        assert (
            Reviver(team.house.jobs, team.house.runner, team.house.healthy, first=60.0).look() == []
        )  # too soon
        at_once = Reviver(team.house.jobs, team.house.runner, team.house.healthy, first=0.0)
        source.fault = lambda n: "free 500"  # healthy to look at, and not so: one request finds out
        sent = source.requests
        assert at_once.look() == [job]
        team.wait([job], 30, "paused")
        assert (source.requests, team.get(job).status_reason) == (sent + 1, DOWN)
        source.fault = lambda n: None
        assert at_once.look() == [job]
        team.wait([job])
        assert team.get(job).status == "succeeded"


def _dead(connection_id: str) -> bool:
    raise Unavailable("down")


def test_money_lost_before_any_answer_is_told(tmp_path: Path, source: Source, sqlite_url: str) -> None:
    """Nothing but unknown outcomes until the cap: the job fails for want of money, and says that."""
    source.fault = lambda n: "billed 500"
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(1, cap=95, **race())
        for _ in range(20):
            team.wait([job], 60, "paused", "failed")
            if team.get(job).over:
                break
            _resume(team, job)
        assert team.error(job) == "budget_exhausted", team.story([job])
        team.never_over()
        assert source.bill == team.unknown() <= 95
        assert team.unknown() >= 60  # the share of the final test is not touched


@pytest.mark.parametrize(
    ("fault", "reason"), [("no key", "provider_key_refused"), ("quota", "provider_quota_exhausted")]
)
def test_refusals_pause_with_their_reason(
    tmp_path: Path, source: Source, sqlite_url: str, fault: str, reason: str
) -> None:
    source.fault = lambda n: fault if n >= 5 else None
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        job = team.job(1)
        team.wait([job], 60, "paused")
        assert team.get(job).status_reason == reason
        source.fault = lambda n: None
        team.house.jobs.resume(job)
        team.house.runner.enqueue(job)
        team.wait([job])
        team.check([job])
        assert team.unknown() == 0


def test_the_connections_budget_stands_above(tmp_path: Path, source: Source, sqlite_url: str) -> None:
    with crew(sqlite_url, tmp_path / "faults", source, 1) as team:
        team.house.ledger.set_caps(team.connection, 30 * 1_200, None)
        job = team.job(1)
        team.wait([job], 60, "paused")
        assert team.get(job).status_reason == "connection_budget_exhausted"
        assert source.bill <= 30
        team.house.ledger.set_caps(team.connection, None, None)
        team.house.jobs.resume(job)
        team.house.runner.enqueue(job)
        team.wait([job])
        team.check([job])
