"""A key's cap on both databases: over jobs, endpoints and threads, to the last micro-unit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import Engine

from app.errors import BadRequest, BudgetExhausted, Conflict
from app.storage import database
from app.storage.budget import Ledger
from app.storage.database import migrate, open_engine
from app.storage.keys import KeyLimits, Keys

PRICE = 1_200


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrate(database_url)
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def ask(ledger: Ledger, scope: str, images: int = 1, payer: str | None = None) -> int:
    return ledger.reserve(
        scope, "conn_1", fence=0, images=images, price_micros=PRICE, purpose="t", payer=payer
    )


def test_jobs_and_predictions_share_the_cap_of_their_key(engine: Engine) -> None:
    keys, ledger = Keys(engine), Ledger(engine)
    record, _ = keys.create("ci", ["spend"], KeyLimits(cap=10 * PRICE, currency="USD"))
    payer = record.account("USD")
    assert payer is not None
    ledger.open("job_1", 100 * PRICE, None, payer)
    ledger.open("ep_1", None, None)
    first = ask(ledger, "job_1", 4)
    ask(ledger, "ep_1", 5, payer)
    ask(ledger, "ep_1", 50)  # of somebody else
    with pytest.raises(BudgetExhausted) as refused:
        ask(ledger, "job_1", 2)
    assert (refused.value.code, refused.value.scope) == ("key_budget_exhausted", payer)
    ledger.settle(first, [], billed=1, unknown=1, outcome="answered")
    cost = keys.costs(record.id)["USD"]
    assert (cost.spent, cost.reserved, cost.cap) == (2 * PRICE, 5 * PRICE, 10 * PRICE)
    assert ledger.list_attempts("job_1")[0].payer == payer
    with pytest.raises(BadRequest, match="USD"):
        record.account("EUR")


def test_many_threads_at_one_cap_are_exact(engine: Engine) -> None:
    keys, ledger = Keys(engine), Ledger(engine)
    record, _ = keys.create("ci", ["spend"], KeyLimits(cap=97 * PRICE, currency="USD"))
    for n in range(4):
        ledger.open(f"job_{n}", None, None, record.account("USD"))

    def spend(n: int) -> int:
        bought = 0
        for images in (3, 2, 1):
            with suppress(BudgetExhausted):
                while True:
                    attempt = ask(ledger, f"job_{n % 4}", images)
                    ledger.settle(attempt, [], billed=images, unknown=0, outcome="answered")
                    bought += images
        return bought

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 97
    cost = keys.costs(record.id)["USD"]
    assert (cost.spent, cost.reserved) == (97 * PRICE, 0)
    assert sum(ledger.cost(f"job_{n}").spent for n in range(4)) == 97 * PRICE


def test_a_cap_set_later_counts_what_was_spent_and_stops_other_currencies(engine: Engine) -> None:
    keys, ledger = Keys(engine), Ledger(engine)
    record, _ = keys.create("ci", ["spend"])
    dollars, euros = record.account("USD"), record.account("EUR")
    ledger.open("job_eur", None, None, euros)
    ledger.settle(ask(ledger, "job_eur", 2), [], billed=2, unknown=0, outcome="answered")
    ask(ledger, "job_eur", 3, dollars)
    with pytest.raises(Conflict, match="below"):
        keys.edit(record.id, limits=KeyLimits(cap=3 * PRICE - 1, currency="USD"))
    assert keys.get(record.id).currency is None
    keys.edit(record.id, limits=KeyLimits(cap=3 * PRICE, currency="USD"))
    with pytest.raises(BudgetExhausted):
        ask(ledger, "job_eur", 1)
    keys.edit(record.id, limits=KeyLimits())
    ask(ledger, "job_eur", 1)


def test_the_rate_is_shared_and_lets_a_second_burst(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = Keys(engine).create("ci", ["read"], KeyLimits(requests_per_second=4))
    processes = [Keys(engine), Keys(engine)]
    with database.read(engine) as connection:
        clock = float(round(database.now(connection)))  # sums of quarters are exact
    stands = clock  # a slow machine must not earn requests between two of these
    monkeypatch.setattr("app.storage.keys.now", lambda _: stands)
    waits = [processes[n % 2].wait(record) for n in range(6)]
    assert waits == [0.0] * 4 + [0.25] * 2  # a refusal costs nothing
    stands = clock + 0.25
    assert processes[0].wait(record) == 0.0
    assert processes[1].wait(record) == 0.25
    monkeypatch.undo()
    seldom, _ = Keys(engine).create("seldom", ["read"], KeyLimits(requests_per_second=0.001))
    assert processes[0].wait(seldom) == 0.0
    assert 900 < processes[1].wait(seldom) <= 1000  # by the database's own clock
    assert Keys(engine).wait(Keys(engine).create("free", ["read"])[0]) == 0.0
