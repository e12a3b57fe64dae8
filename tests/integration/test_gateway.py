"""The gateway against a loopback provider: what is answered, what is paid, what is stored."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest
from gateway_house import PRICE, House, images, open_house
from sqlalchemy import update
from stub_provider import LABELS, Stub, expected, truth

from app.errors import (
    BudgetExhausted,
    KeyRefused,
    ModelChanged,
    QuotaExhausted,
    Rejected,
    Throttled,
    Unavailable,
    Unusable,
)
from app.gateway.client import Client
from app.gateway.encoding import digest, encode, file_digest, key
from app.gateway.query import RetryPolicy
from app.storage import tables
from app.storage.answers import Answers
from app.storage.connections import LabelBook
from app.storage.database import migrate, write


@pytest.fixture
async def house(sqlite_url: str) -> AsyncGenerator[House]:
    async with open_house(sqlite_url) as opened:
        yield opened
        opened.settled()


def is_bad(*which: np.ndarray) -> Callable[[bytes], int | None]:
    marked = set(encode(np.stack(which)))
    return lambda png: 30101 if png in marked else None


# ---------------------------------------------------------------- answers


async def test_answers_follow_the_images_and_are_bought_once(house: House) -> None:
    pixels = images(30)
    pixels[7] = pixels[20]  # the same picture twice
    gateway = house.gateway()
    first = await gateway.ask(pixels)
    assert first.labels == LABELS
    np.testing.assert_array_equal(first.scores, expected(pixels))
    assert (first.sent, first.cached, house.stub.bill) == (29, 1, 29)
    requests = house.stub.requests
    assert requests == 8  # full batches: 7 of 4 and one of 1
    again = await house.gateway().ask(pixels)
    np.testing.assert_array_equal(again.scores, first.scores)
    assert (again.sent, again.cached, house.stub.requests) == (0, 30, requests)
    cost = house.ledger.cost("job_1")
    assert (cost.queries_spent, cost.cached_queries, cost.retried_queries) == (29, 31, 0)


async def test_two_asks_at_once_buy_a_picture_once(house: House) -> None:
    house.stub.delay = lambda n: 0.1
    pixels, gateway = images(10), house.gateway()
    one, two = await asyncio.gather(gateway.ask(pixels), gateway.ask(pixels[::-1]))
    np.testing.assert_array_equal(one.scores, two.scores[::-1])
    assert house.stub.bill == 10


async def test_query_follows_the_labels_it_was_made_for(house: House) -> None:
    pixels = images(3)
    query = house.gateway().query(("unsafe", "never seen", "safe"))
    scores = await query(pixels)
    np.testing.assert_array_equal(scores[:, [2, 0]], expected(pixels))
    assert np.isnan(scores[:, 1]).all()


async def test_labels_that_come_later_are_censored_before(house: House) -> None:
    house.stub.names = lambda n: LABELS if n else LABELS[:1]
    gateway = house.gateway(concurrency=1)
    answers = await gateway.ask(images(8))
    assert answers.labels == LABELS
    assert np.isnan(answers.scores).tolist() == [[False, True]] * 4 + [[False, False]] * 4


async def test_no_images_no_requests(house: House) -> None:
    assert (await house.gateway().ask(images(0))).scores.shape == (0, 0)
    assert house.stub.requests == 0


async def test_cache_only_sends_nothing(house: House) -> None:
    pixels, gateway = images(6), house.gateway()
    await gateway.ask(pixels[:2])
    requests = house.stub.requests
    answers = await gateway.ask(pixels, cache_only=True)
    np.testing.assert_array_equal(np.isnan(answers.scores).all(axis=1), [False] * 2 + [True] * 4)
    assert (house.stub.requests, answers.cached, answers.sent) == (requests, 2, 0)


async def test_discover(house: House) -> None:
    assert await house.gateway().discover() == LABELS
    assert house.gateway().model.labels == LABELS
    assert house.ledger.cost("job_1").queries_spent == 0


async def test_progress_is_told(house: House) -> None:
    told: list[tuple[int, int]] = []
    await house.gateway(on_progress=lambda done, cached: told.append((done, cached))).ask(images(10))
    assert told[-1] == (10, 0)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


async def test_requests_at_once_are_bounded_and_a_slow_one_stalls_nobody(house: House) -> None:
    house.stub.delay = lambda n: 2.0 if n == 0 else 0.02
    done: list[float] = []
    loop = asyncio.get_running_loop()
    gateway = house.gateway(concurrency=4, max_batch=1, on_progress=lambda *_: done.append(loop.time()))
    await gateway.ask(images(40))
    assert house.stub.most_at_once == 4
    assert sum(at < done[-1] - 0.3 for at in done) >= 39  # all others were long over when the slow one came


async def test_the_account_bounds_requests_over_all_processes(house: House, sqlite_url: str) -> None:
    """Two ledgers of one database are two processes as far as the rows can tell."""
    other = House(sqlite_url, house.stub, house.client)
    house.stub.delay = lambda n: 0.05
    pixels = images(40)
    gateways = [at.gateway(concurrency=4, max_batch=1) for at in (house, other)]
    both = await asyncio.gather(gateways[0].ask(pixels[:20]), gateways[1].ask(pixels[20:]))
    assert [answers.sent for answers in both] == [20, 20]
    assert house.stub.most_at_once == 4
    other.engine.dispose()


async def test_no_place_is_taken_long_before_its_slot(house: House, sqlite_url: str) -> None:
    """What waits for its slot with a place in hand keeps others out, and is blocked a while when it dies: a
    job that came first leaves places and slots to the one that comes next."""
    other = House(sqlite_url, house.stub, house.client)
    pixels, seen = images(95), list[int]()
    first, second = (at.gateway(rps=40, concurrency=8, max_batch=1) for at in (house, other))
    early = asyncio.create_task(first.ask(pixels[:80]))
    while house.stub.requests < 20:
        seen.append(house.ledger.under_way("conn_1"))
        await asyncio.sleep(0.02)
    assert np.mean(seen) < 3  # of seven
    await second.ask(pixels[80:])
    assert not early.done()
    assert (await early).sent == 80
    other.engine.dispose()


async def test_what_a_dead_process_had_under_way_counts_until_it_is_given_up(house: House) -> None:
    for _ in range(2):
        house.ledger.reserve("job_1", "conn_1", fence=0, images=1, price_micros=PRICE, purpose="predict")
    asking = asyncio.create_task(house.gateway(concurrency=2).ask(images(2)))
    await asyncio.sleep(0.5)
    assert house.stub.requests == 0
    assert house.ledger.recover_silent(0.4) == 2
    assert (await asking).sent == 2


async def test_a_prediction_does_not_wait_for_ever(house: House) -> None:
    held = house.ledger.reserve("job_1", "conn_1", fence=1, images=1, price_micros=PRICE, purpose="step")
    with pytest.raises(Unusable) as refused:
        await house.gateway(fence=0, concurrency=1, policy=RetryPolicy(patience=0.3)).ask(images(1))
    assert refused.value.code == "connection_busy"
    assert house.stub.requests == 0
    house.ledger.settle(held, (), billed=0, unknown=0, outcome="released")


async def test_learning_leaves_some_of_the_account_to_predictions(house: House) -> None:
    assert house.gateway(concurrency=16).at_once == 14
    assert house.gateway(concurrency=16, fence=0).at_once == 16
    assert house.gateway(concurrency=1).at_once == 1


async def test_answers_of_others_may_name_labels_that_are_new_here(house: House, sqlite_url: str) -> None:
    early = house.gateway()  # knows of no label
    other = House(sqlite_url, house.stub, house.client)
    pixels = images(3)
    await other.gateway().ask(pixels)
    answers = await early.ask(pixels)
    assert (answers.labels, answers.sent) == (LABELS, 0)
    np.testing.assert_array_equal(answers.scores, expected(pixels))
    other.engine.dispose()


# ---------------------------------------------------------------- failures


async def test_an_unknown_outcome_is_listed_with_the_providers_request_id(house: House) -> None:
    house.stub.fault = lambda n: "billed 500" if n == 0 else None
    await house.gateway(max_batch=2, concurrency=1).ask(images(2))
    lost, answered = house.ledger.list_attempts("job_1")
    assert (lost.outcome, lost.billed, lost.http_status, lost.request_id) == ("unknown", 2, 500, "h0")
    assert (answered.outcome, answered.request_id) == ("answered", "r1")


async def test_half_open_one_request_finds_out(house: House) -> None:
    house.stub.fault = lambda n: "billed 500"
    gateway = house.gateway(max_batch=1)
    gateway.trial = True
    with pytest.raises(Unavailable):
        await gateway.ask(images(12))
    assert house.stub.requests == 1
    house.stub.fault = lambda n: None
    house.stub.delay = lambda n: 0.05
    await gateway.ask(images(12))
    assert house.stub.requests == 13
    assert house.stub.most_at_once > 1  # closed again by the first answer


async def test_a_wait_is_told(house: House) -> None:
    assert house.gateway().pace.held_until == 0.0
    gateway = house.gateway(rps=0.5, concurrency=1, max_batch=1)
    began = time.time()
    await gateway.ask(images(2))
    assert began + 1.5 < gateway.pace.held_until < time.time() + 0.1
    house.stub.fault = lambda n: "throttled 0.2" if n == 2 else None
    quick = house.gateway(max_batch=1)
    await quick.ask(images(3, seed=2))
    assert quick.pace.held_until > began


async def test_only_what_failed_is_asked_again(house: House) -> None:
    pixels = images(4)
    sick = is_bad(pixels[1])
    house.stub.bad = lambda png: 40031 if sick(png) and house.stub.requests == 1 else None
    answers = await house.gateway().ask(pixels)
    np.testing.assert_array_equal(answers.scores, expected(pixels))
    assert house.stub.bill == 4
    cost = house.ledger.cost("job_1")
    assert (cost.queries_spent, cost.unknown_queries, cost.retried_queries) == (5, 1, 1)
    lines = house.ledger.list_attempts("job_1")
    assert [(line.outcome, line.images, line.billed) for line in lines] == [
        ("partial", 4, 4),
        ("answered", 1, 1),
    ]
    assert lines[0].request_id == "r0"


async def test_an_image_that_is_refused_does_not_poison_the_batch(house: House) -> None:
    pixels = images(6)
    pixels[5] = pixels[2]
    house.stub.bad = is_bad(pixels[2])
    answers = await house.gateway().ask(pixels)
    assert list(answers.rejected) == [2, 5]
    assert isinstance(answers.rejected[2], Rejected)
    assert np.isnan(answers.scores[[2, 5]]).all()
    np.testing.assert_array_equal(
        np.delete(answers.scores, [2, 5], 0), np.delete(expected(pixels), [2, 5], 0)
    )
    assert house.ledger.cost("job_1").queries_spent == house.stub.bill == 4
    with pytest.raises(Rejected):
        await house.gateway().query(LABELS)(pixels)


async def test_a_refused_batch_is_halved(house: House) -> None:
    house.stub.fault = lambda n: "too much" if n in (0, 1) else None
    pixels = images(4)
    answers = await house.gateway().ask(pixels)
    np.testing.assert_array_equal(answers.scores, expected(pixels))
    assert house.ledger.cost("job_1").queries_spent == house.stub.bill == 4


async def test_an_image_that_always_breaks_is_named_while_others_are_answered(house: House) -> None:
    pixels = images(12)
    sick = is_bad(pixels[3])
    house.stub.bad = lambda png: 21313 if sick(png) else None
    answers = await house.gateway(policy=RetryPolicy(tries=3, first=0.01)).ask(pixels)
    assert list(answers.rejected) == [3]
    np.testing.assert_array_equal(np.delete(answers.scores, 3, 0), np.delete(expected(pixels), 3, 0))


async def test_throttling_is_no_failure_and_costs_nothing(house: House) -> None:
    house.stub.fault = lambda n: "throttled 0.2" if n < 20 else None  # more often than `tries`
    answers = await house.gateway(concurrency=1).ask(images(4))
    assert answers.sent == house.ledger.cost("job_1").queries_spent == house.stub.bill == 4
    assert house.ledger.cost("job_1").retried_queries == 80
    gaps = np.diff(house.stub.arrivals[:21])
    assert gaps.min() >= 0.199


async def test_throttling_without_end_gives_up(house: House) -> None:
    house.stub.fault = lambda n: "throttled 0.2"
    with pytest.raises(Throttled):
        await house.gateway(policy=RetryPolicy(patience=0.5)).ask(images(1))
    assert house.stub.requests == 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [("no key", KeyRefused), ("quota", QuotaExhausted), ("throttled for a day", QuotaExhausted)],
)
async def test_errors_of_the_account_stop_quickly(house: House, fault: str, error: type[Exception]) -> None:
    house.stub.fault = lambda n: fault if n >= 3 else None
    house.stub.delay = lambda n: 0.3 if n == 0 else 0.02
    pixels = images(400)
    with pytest.raises(error):
        await house.gateway(max_batch=1, concurrency=4).ask(pixels)
    assert house.stub.requests <= 12
    assert house.ledger.cost("job_1").queries_spent == house.stub.bill == 3
    known = await house.gateway().ask(pixels, cache_only=True)
    assert known.cached == 3  # the slow one was under way when the stop came, and is kept


async def test_a_dead_provider_costs_nothing(house: House) -> None:
    house.stub.url = "http://127.0.0.1:1"
    with pytest.raises(Unavailable):
        await house.gateway(policy=RetryPolicy(tries=3, first=0.01)).ask(images(6))
    assert house.ledger.cost("job_1").queries_spent == 0


async def test_a_failing_provider_stops_before_it_eats_the_budget(house: House) -> None:
    house.stub.fault = lambda n: "billed 500"
    with pytest.raises(Unavailable):
        await house.gateway(concurrency=4, max_batch=1, policy=RetryPolicy(first=0.001)).ask(images(300))
    assert house.stub.requests <= 16 + 4
    assert house.ledger.cost("job_1").queries_spent == house.stub.bill


@pytest.mark.parametrize("fault", ["billed 500", "reset", "truncated"])
async def test_unknown_outcomes_are_spent_and_asked_again(house: House, fault: str) -> None:
    house.stub.fault = lambda n: fault if n % 3 == 0 else None
    pixels = images(40)
    answers = await house.gateway().ask(pixels)
    np.testing.assert_array_equal(answers.scores, expected(pixels))
    cost = house.ledger.cost("job_1")
    assert cost.unknown_queries > 0
    assert cost.queries_spent == answers.sent == house.stub.bill == 40 + cost.unknown_queries


async def test_a_timeout_is_unknown(sqlite_url: str) -> None:
    migrate(sqlite_url)
    async with Stub().serve() as stub, Client(allow_private=True, total_seconds=0.3) as client:
        house = House(sqlite_url, stub, client)
        stub.delay = lambda n: 1.0 if n == 0 else 0.0
        answers = await house.gateway().ask(images(2))
        assert not np.isnan(answers.scores).any()
        assert house.ledger.cost("job_1").unknown_queries == 2
        assert "provider_timeout" in [line.code for line in house.ledger.list_attempts("job_1")]
        house.settled()


@pytest.mark.parametrize("seed", range(4))
async def test_bill_and_ledger_agree_whatever_happens(house: House, seed: int) -> None:
    rng = np.random.default_rng([seed, 5])
    faults = [
        "free 500",
        "billed 500",
        "reset",
        "truncated",
        "throttled",
        "throttled 0.2",
        "bad batch",
        "redirect",
    ]
    drawn = rng.choice(faults[:6], 10_000)
    faulty = rng.random(10_000) < 0.3
    house.stub.fault = lambda n: str(drawn[n]) if faulty[n] else None
    sick = rng.random(65_536) < 0.1
    house.stub.bad = lambda png: (
        40031 if sick[int(truth(png)[0] * 65_535)] and house.stub.requests % 2 else None
    )
    pixels = images(150, seed)
    patient = RetryPolicy(first=0.01, longest=0.05, breaker=200, tries=40)
    answers = await house.gateway(policy=patient).ask(pixels)
    np.testing.assert_array_equal(answers.scores, expected(pixels))
    cost = house.ledger.cost("job_1")
    twice = sum(n - 1 for n in house.stub.billed.values())
    assert house.stub.bill <= cost.queries_spent
    assert cost.queries_spent - cost.unknown_queries == 150  # every known answer was paid once
    assert twice <= cost.unknown_queries


# ---------------------------------------------------------------- budget


async def test_the_cap_holds_to_the_last_query(house: House) -> None:
    house.ledger.set_caps("job_1", 10 * PRICE + 7, None)
    pixels = images(40)
    with pytest.raises(BudgetExhausted) as refused:
        await house.gateway(max_batch=1).ask(pixels)
    assert refused.value.reason == "budget_exhausted"
    assert house.stub.bill == house.ledger.cost("job_1").queries_spent == 10
    assert (await house.gateway().ask(pixels, cache_only=True)).cached == 10


async def test_keep_is_left_alone(house: House) -> None:
    house.ledger.set_caps("job_1", None, 12)
    with pytest.raises(BudgetExhausted) as refused:
        await house.gateway(max_batch=1).ask(images(40), keep_queries=5)
    assert refused.value.reason == "max_queries"
    assert house.stub.bill == 7
    await house.gateway(max_batch=1).ask(images(5, 1), purpose="test")
    assert house.ledger.list_attempts("job_1")[-1].purpose == "test"


async def test_retries_never_pass_the_cap(house: House) -> None:
    house.stub.fault = lambda n: "billed 500"
    house.ledger.set_caps("job_1", 5 * PRICE, None)
    with pytest.raises(BudgetExhausted):
        await house.gateway(max_batch=2, concurrency=1).ask(images(2))
    assert house.stub.bill == house.ledger.cost("job_1").queries_spent == 4


# ---------------------------------------------------------------- versions


async def test_a_new_version_has_its_own_answers(house: House) -> None:
    changes: list[tuple[str, str]] = []
    house.stub.version = lambda n: "v1" if n < 2 else "v2"
    gateway = house.gateway(concurrency=1, on_version_change=lambda *change: changes.append(change))
    pixels = images(12)
    await gateway.ask(pixels)
    assert changes == [("v1", "v2")]
    again = await house.gateway().ask(pixels)  # the version is v2 now: what v1 said is no answer
    assert (again.cached, again.sent) == (4, 8)


async def test_a_pinned_version_stops_the_ask_and_keeps_what_was_paid(house: House) -> None:
    house.stub.version = lambda n: "v1" if n < 2 else "v2"
    pixels = images(40)
    with pytest.raises(ModelChanged) as stopped:
        await house.gateway(concurrency=1, pin_version=True).ask(pixels)
    assert stopped.value.code == "source_model_changed"
    assert house.stub.bill == 12
    assert (await house.gateway().ask(pixels, cache_only=True)).cached == 4


async def test_the_first_version_is_no_change(house: House) -> None:
    pixels = images(8)
    await house.gateway(pin_version=True).ask(pixels)
    assert (await house.gateway(pin_version=True).ask(pixels)).cached == 8


# ---------------------------------------------------------------- cancellation


async def test_a_cancelled_ask_keeps_what_arrives_soon(house: House) -> None:
    house.stub.delay = lambda n: 0.3
    pixels = images(100)
    task = asyncio.create_task(house.gateway(max_batch=1, concurrency=4).ask(pixels))
    while house.stub.requests < 4:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.stub.bill == house.ledger.cost("job_1").queries_spent == 4
    assert (await house.gateway().ask(pixels, cache_only=True)).cached == 4


async def test_a_cancelled_ask_counts_what_does_not_arrive_as_unknown(house: House) -> None:
    house.stub.delay = lambda n: 5.0
    gateway = house.gateway(max_batch=1, concurrency=4, policy=RetryPolicy(grace=0.05))
    task = asyncio.create_task(gateway.ask(images(100)))
    while house.stub.requests < 4:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cost = house.ledger.cost("job_1")
    assert (cost.queries_spent, cost.unknown_queries, house.stub.requests) == (4, 4, 4)
    assert not gateway.buying  # nobody waits for what is not coming


async def test_another_ask_buys_what_a_cancelled_one_left(house: House) -> None:
    house.stub.delay = lambda n: 5.0 if n == 0 else 0.0
    gateway, pixels = house.gateway(policy=RetryPolicy(grace=0.05)), images(4)
    first = asyncio.create_task(gateway.ask(pixels))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(gateway.ask(pixels))
    await asyncio.sleep(0.1)
    first.cancel()
    np.testing.assert_array_equal((await second).scores, expected(pixels))


async def test_answers_of_an_older_release_are_not_bought_again(house: House) -> None:
    """They are kept under the file that was sent; those of today under the pixels."""
    shown = images(6)
    bought = await house.gateway().ask(shown)
    older = Answers(house.engine)
    assert not older.by_file
    info = house.stub.provider().info
    with write(house.engine) as connection:
        for image in shown:
            today, former = (
                key("conn_1", info, LabelBook(house.engine, "conn_1").version(), mark)
                for mark in (digest(image), file_digest(encode(image[None])[0]))
            )
            row = update(tables.answers).where(tables.answers.c.key == today)
            assert connection.execute(row.values(key=former)).rowcount
        connection.execute(tables.file_keys.insert().values(last_answer=6))
    before = house.ledger.cost("job_1").queries_spent
    again = await house.gateway().ask(shown)
    assert (again.sent, again.cached, house.ledger.cost("job_1").queries_spent) == (0, 6, before)
    np.testing.assert_array_equal(again.scores, bought.scores)
