"""Fences, events without a gap, states and curves: on SQLite and PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.contracts import Limits, Price
from app.errors import BadRequest, Conflict, NotFound, StaleFence
from app.storage import database, ids
from app.storage.connections import Connections, NewConnection
from app.storage.datasets import Datasets
from app.storage.endpoints import LIVE_SECONDS, Endpoints
from app.storage.idempotency import Idempotency, StoredAnswer
from app.storage.jobs import Jobs
from app.storage.secrets import Vault, key_file

HELD = 4  # writers at once


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    database.migrate(database_url)
    made = database.open_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def connections(engine: Engine) -> Connections:
    return Connections(engine, Vault("k"), {}.get)


def a_job(engine: Engine, connections: Connections, root: Path) -> str:
    new = NewConnection("c", "clarifai", "https://x", {}, {}, Price(10), Limits(), secret="s" * 20)
    store = Datasets(engine, root)
    ident, _ = store.reserve()
    store.create(ident, name="d", classes=("a",), counts={}, content_sha256="", report={}, seed=0)
    made = {"name": "j", "spec": {}, "metadata": {}, "cap": None, "queries_cap": None}
    return Jobs(engine).create(connection_id=connections.create(new).id, dataset_id=ident, **made).id


def test_a_worker_that_lost_the_job_writes_nothing(
    engine: Engine, connections: Connections, tmp_path: Path
) -> None:
    jobs, job = Jobs(engine), a_job(engine, connections, tmp_path)
    old, new = jobs.begin(job), jobs.begin(job)
    assert old is not None
    assert new is not None
    assert new.fence == old.fence + 1
    before = (jobs.get(job), jobs.events(job))
    state = {"metrics": {}, "queries": 1, "spent_micros": 1, "phase": "p"}
    writes = [
        lambda: jobs.progress(job, old.fence, {"fraction": 1}),
        lambda: jobs.save_state(job, old.fence, 1, b"x", **state),
        lambda: jobs.save_program(job, old.fence, 1, b"x", metrics={}, validation_images=1, queries=1),
        lambda: jobs.fail(job, old.fence, BadRequest("no")),
        lambda: jobs.pause_for(job, old.fence, BadRequest("no")),
        lambda: jobs.stand_down(job, old.fence),
        lambda: jobs.succeed(
            job, old.fence, checkpoint_id="", metrics={}, reason=None, endpoint=None, progress={}
        ),
    ]
    for write in writes:
        with pytest.raises(StaleFence):
            write()
    assert (jobs.get(job), jobs.events(job)) == before
    assert jobs.state(job) is None
    jobs.save_state(job, new.fence, 1, b"x", **state)
    assert jobs.state(job) == b"x"


def test_events_have_no_gap_with_many_writers(
    engine: Engine, connections: Connections, tmp_path: Path
) -> None:
    jobs, job = Jobs(engine), a_job(engine, connections, tmp_path)
    held = jobs.begin(job)
    assert held is not None

    def write(n: int) -> None:
        jobs.save_state(
            job, held.fence, n, b"%d" % n, metrics={"n": n}, queries=n, spent_micros=n, phase="learn"
        )

    with ThreadPoolExecutor(HELD) as pool:
        list(pool.map(write, range(1, 41)))
    found = jobs.events(job, 0, 1000)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert {event.data["n"] for event in found if event.type == "job.step"} == set(range(1, 41))
    assert len(jobs.points(job)) == 40
    assert jobs.get(job).revision >= 42


def test_a_step_done_again_after_a_crash_replaces_the_first(
    engine: Engine, connections: Connections, tmp_path: Path
) -> None:
    jobs, job = Jobs(engine), a_job(engine, connections, tmp_path)
    made: list[str] = []
    for blob in (b"first", b"second"):
        held = jobs.begin(job)
        assert held is not None
        jobs.save_state(job, held.fence, 7, blob, metrics={}, queries=1, spent_micros=1, phase="p")
        metrics = {"val_accuracy": 0.5}
        made.append(
            jobs.save_program(job, held.fence, 7, blob, metrics=metrics, validation_images=4, queries=1)
        )
    assert made[0] == made[1]
    assert jobs.program(made[0]) == jobs.state(job) == b"second"
    assert len(jobs.points(job)) == len(jobs.programs(job)) == 1
    endpoints = Endpoints(engine)
    assert endpoints.publish("e", job, made[0]).version == endpoints.publish("e", job, made[0]).version == 1


def test_what_is_live_is_remembered_for_a_moment_and_forgotten_at_a_change(
    engine: Engine, connections: Connections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, job = Jobs(engine), a_job(engine, connections, tmp_path)
    held = jobs.begin(job)
    assert held is not None
    first, second = (
        jobs.save_program(job, held.fence, n, b"%d" % n, metrics={}, validation_images=1, queries=0)
        for n in (1, 2)
    )
    here, there = Endpoints(engine), Endpoints(engine)  # two processes
    here.publish("e", job, first)
    assert here.lately("e") is None
    assert here.live("e") == here.lately("e") == there.live("e")
    here.publish("e", job, second)
    assert here.lately("e") is None
    assert here.live("e").checkpoint_id == second
    stale = there.lately("e")
    assert stale is not None
    assert stale.checkpoint_id == first
    monkeypatch.setattr(
        "app.storage.endpoints.time.monotonic", lambda: time.perf_counter() + LIVE_SECONDS + 1e6
    )
    assert there.lately("e") is None  # a second later
    assert there.live("e").checkpoint_id == second
    here.live("e")
    here.edit("e", enabled=False)
    assert here.lately("e") is None
    with pytest.raises(Conflict):
        here.live("e")
    assert here.lately("e") is None
    here.edit("e", version=1, enabled=True)
    assert here.live("e").checkpoint_id == first
    here.delete("e")
    assert here.lately("e") is None


def test_labels_are_added_once_by_whoever_sees_them(connections: Connections) -> None:
    new = NewConnection("c", "clarifai", "https://x", {}, {}, Price(10), Limits())
    ident = connections.create(new).id

    def extend(n: int) -> tuple[str, ...]:
        return connections.book(ident).extend([f"l{i}" for i in range(n, n + 5)])

    with ThreadPoolExecutor(HELD) as pool:
        seen = list(pool.map(extend, [0, 3, 1, 6, 2, 4, 5, 0]))
    final = connections.book(ident).labels()
    assert sorted(final) == sorted(f"l{i}" for i in range(11))
    for labels in seen:  # columns that were ever handed out keep their places
        assert final[: len(labels)] == labels


def test_only_one_of_many_is_the_first(engine: Engine) -> None:
    store = Idempotency(engine, Vault("k"))

    def begin(_: int) -> str:
        try:
            return "first" if store.begin("me", "key", "print") is None else "replay"
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(HELD) as pool:
        found = list(pool.map(begin, range(12)))
    assert sorted(found) == ["first", *["idempotency_in_progress"] * 11]
    answer = StoredAnswer(201, {"a": "b"}, b"body")
    store.finish("me", "key", answer)
    assert store.begin("me", "key", "print") == answer
    with pytest.raises(BadRequest, match="another request"):
        store.begin("me", "key", "other")


def test_a_new_key_opens_old_secrets(engine: Engine) -> None:
    new = NewConnection("c", "clarifai", "https://x", {}, {}, Price(1), Limits(), secret="old secret")
    ident = Connections(engine, Vault("old"), {}.get).create(new).id
    with pytest.raises(BadRequest, match="does not have"):
        Connections(engine, Vault("new"), {}.get).secret(ident)
    both = Connections(engine, Vault("new, old"), {}.get)
    assert both.secret(ident) == "old secret"
    assert both.reseal() == 1
    assert Connections(engine, Vault("new"), {}.get).secret(ident) == "old secret"
    both.delete(ident)
    with pytest.raises(NotFound):
        both.secret(ident)


def test_ids_sort_by_time_and_the_key_file_is_made_once(tmp_path: Path) -> None:
    made = [ids.new("x_") for _ in range(2000)]
    assert made == sorted(set(made))
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: key_file(tmp_path / "deep" / "secret.key"), range(16)))
    assert len(keys) == 1
    assert (tmp_path / "deep" / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["secret.key"]
