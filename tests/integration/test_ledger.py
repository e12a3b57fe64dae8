"""The ledger on both databases: caps, sums, idempotence, many writers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from app.contracts import Cost, Reserve, Settle
from app.errors import BudgetExhausted, Conflict, Crowded, NotFound
from app.storage.answers import Answers
from app.storage.audit import Audit, Note
from app.storage.budget import Ledger
from app.storage.database import check_migrations, migrate, open_engine

PRICE = 1_200


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrate(database_url)
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    return Ledger(engine)


def reserve(ledger: Ledger, scope: str = "job_1", images: int = 1, **keywords: int) -> int:
    fence = keywords.pop("fence", 1)
    return ledger.reserve(
        scope, "conn_1", fence=fence, images=images, price_micros=PRICE, purpose="t", **keywords
    )


def test_models_and_migrations_agree(database_url: str) -> None:
    assert check_migrations(database_url) == []


def test_reserve_settle_moves_money_in_both_scopes(ledger: Ledger) -> None:
    ledger.open("job_1", 10 * PRICE, 10)
    attempt = reserve(ledger, images=8, retried=3)
    assert ledger.cost("job_1") == Cost(0, 8 * PRICE, 10 * PRICE, 0, 8, 10, retried_queries=3)
    told = {"http_status": 207, "request_id": "r", "model_version": "v" * 300}
    assert ledger.settle(attempt, [], billed=5, unknown=2, outcome="partial", **told)
    after = Cost(7 * PRICE, 0, 10 * PRICE, 7, 0, 10, unknown_queries=2, retried_queries=3)
    assert ledger.cost("job_1") == after
    account = ledger.cost("conn_1")
    assert (account.spent, account.reserved, account.cap) == (7 * PRICE, 0, None)
    assert not ledger.settle(attempt, [], billed=8, unknown=0, outcome="answered")
    assert ledger.cost("job_1") == after
    [line] = ledger.list_attempts("job_1")
    assert (line.outcome, line.billed, line.http_status, line.request_id) == ("partial", 7, 207, "r")
    assert line.model_version == "v" * 200


def test_settle_stores_answers_once(ledger: Ledger) -> None:
    ledger.open("job_1", None, None)
    key, row = b"k" * 20, np.array([0.25, np.nan], np.float32)
    ledger.settle(reserve(ledger), [(key, row)], billed=1, unknown=0, outcome="answered")
    ledger.settle(reserve(ledger), [(key, row + 1)], billed=1, unknown=0, outcome="answered")
    stored = Answers(ledger._engine).get([key, b"x" * 20])
    assert list(stored) == [key]
    np.testing.assert_array_equal(stored[key], row)


def test_money_cap_refuses_and_changes_nothing(ledger: Ledger) -> None:
    ledger.open("job_1", 3 * PRICE + 1, None)
    reserve(ledger, images=3)
    before = ledger.cost("job_1"), ledger.cost("conn_1")
    with pytest.raises(BudgetExhausted) as refused:
        reserve(ledger)
    assert (refused.value.reason, refused.value.scope) == ("budget_exhausted", "job_1")
    assert (ledger.cost("job_1"), ledger.cost("conn_1")) == before


def test_query_cap_and_keep(ledger: Ledger) -> None:
    ledger.open("job_1", 100 * PRICE, 10)
    with pytest.raises(BudgetExhausted) as refused:
        reserve(ledger, images=7, keep_queries=4)
    assert refused.value.reason == "max_queries"
    reserve(ledger, images=6, keep_queries=4)
    with pytest.raises(BudgetExhausted):
        reserve(ledger, images=1, keep_micros=94 * PRICE)
    reserve(ledger, images=4)


def test_account_cap_stands_above(ledger: Ledger) -> None:
    ledger.open("conn_1", 2 * PRICE, None)
    ledger.open("job_1", None, None)
    ledger.open("job_2", None, None)
    reserve(ledger, "job_1")
    reserve(ledger, "job_2")
    with pytest.raises(BudgetExhausted) as refused:
        reserve(ledger, "job_1")
    assert refused.value.scope == "conn_1"


def test_a_connection_spends_for_itself_once(ledger: Ledger) -> None:
    ledger.settle(reserve(ledger, "conn_1"), [], billed=1, unknown=0, outcome="answered")
    assert ledger.cost("conn_1").spent == PRICE


def test_so_many_of_an_account_are_under_way_at_once(ledger: Ledger) -> None:
    for scope in ("job_1", "job_2"):
        ledger.open(scope, None, None)
    first = reserve(ledger, "job_1", at_once=2)
    reserve(ledger, "job_2", at_once=2)
    before = ledger.cost("conn_1")
    for scope in ("job_1", "job_2"):
        with pytest.raises(Crowded):
            reserve(ledger, scope, at_once=2)
    assert ledger.cost("conn_1") == before
    reserve(ledger, "job_1", at_once=3)
    ledger.settle(first, [], billed=1, unknown=0, outcome="answered")
    with pytest.raises(Crowded):
        reserve(ledger, "job_1", at_once=2)
    assert ledger.recover("job_1", 2) == 1  # a dead worker's counts until somebody takes its place
    reserve(ledger, "job_1", at_once=2)


def test_unknown_scope(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        reserve(ledger, "job_never")
    with pytest.raises(NotFound):
        ledger.cost("job_never")
    with pytest.raises(NotFound):
        ledger.set_caps("job_never", 1, 1)


def test_caps_cannot_go_below_what_is_on_its_way(ledger: Ledger) -> None:
    ledger.open("job_1", 10 * PRICE, 10)
    reserve(ledger, images=4)
    with pytest.raises(Conflict, match="budget"):
        ledger.set_caps("job_1", 3 * PRICE, 10)
    with pytest.raises(Conflict) as refused:
        ledger.set_caps("job_1", None, 3)
    assert "4" in str(refused.value.hint)
    ledger.set_caps("job_1", 4 * PRICE, 4)
    with pytest.raises(BudgetExhausted):
        reserve(ledger)


def test_recover_spends_what_an_older_fence_left_open(ledger: Ledger) -> None:
    ledger.open("job_1", None, None)
    lost, mine = reserve(ledger, images=3, fence=1), reserve(ledger, images=2, fence=2)
    assert ledger.recover("job_1", 2) == 1
    cost = ledger.cost("job_1")
    assert (cost.queries_spent, cost.unknown_queries, cost.queries_reserved) == (3, 3, 2)
    key, row = b"k" * 20, np.ones(2, np.float32)
    assert not ledger.settle(lost, [(key, row)], billed=3, unknown=0, outcome="answered")
    assert ledger.cost("job_1") == cost
    assert key in Answers(ledger._engine).get([key])  # late, but paid: kept
    assert ledger.settle(mine, [], billed=0, unknown=0, outcome="released")
    assert [line.outcome for line in ledger.list_attempts("job_1")] == ["unknown", "released"]


def test_recover_silent_serving_attempts(ledger: Ledger) -> None:
    ledger.open("ep_1", None, None)
    reserve(ledger, "ep_1", fence=0)
    assert ledger.recover_silent(60) == 0
    assert ledger.recover_silent(-1) == 1
    assert ledger.cost("ep_1").unknown_queries == 1


def test_listing_pages(ledger: Ledger) -> None:
    ledger.open("job_1", None, None)
    ids = [reserve(ledger) for _ in range(5)]
    assert [line.id for line in ledger.list_attempts("job_1", after=ids[1], limit=2)] == ids[2:4]


def test_cached_queries_are_counted(ledger: Ledger) -> None:
    ledger.open("job_1", None, None)
    ledger.count_cached("job_1", 7)
    assert ledger.cost("job_1").cached_queries == 7


def test_audit_lines_ride_along_and_a_bad_one_harms_nobody(ledger: Ledger, engine: Engine) -> None:
    line = {"key_id": "k", "action": "a", "resource": "", "request_id": "r", "status": 200, "cost_micros": 0}
    ledger.open("job", None, None)
    intent = Reserve("job", "con", 1, 3, PRICE, "step")
    attempt, written = ledger._commit([intent, Note(line)])
    assert written == 1
    assert isinstance(attempt, int)
    settle = Settle(attempt, (), 3, 0, "answered")
    again, bad, closed, good = ledger._commit([intent, Note(line | {"key_id": None}), settle, Note(line)])
    assert isinstance(again, int)
    assert isinstance(bad, IntegrityError)
    assert (closed, good) == (1, 1)
    cost = ledger.cost("job")
    assert (cost.queries_spent, cost.queries_reserved) == (3, 3)
    assert len(Audit(engine).list()) == 2
    assert (
        Audit(engine, ledger.submit)
        .add(key_id="k", action="a" * 99, resource="", request_id="r", status=200)
        .result()
        == 1
    )


def test_many_who_open_an_account_at_once_do_not_lock_each_other_out(ledger: Ledger, engine: Engine) -> None:
    ledgers = [Ledger(engine) for _ in range(8)]  # as many processes: each with a line of its own
    ledger.open("job_1", None, None)
    together = Barrier(len(ledgers))

    def buy(mine: Ledger) -> None:
        for n in range(6):
            together.wait(30)
            mine.reserve(
                "job_1", f"conn_{n}", fence=0, images=1, price_micros=PRICE, purpose="t", payer=f"key_{n}:USD"
            )

    with ThreadPoolExecutor(len(ledgers)) as pool:
        list(pool.map(buy, ledgers))
    assert ledger.cost("job_1").queries_reserved == 48
    assert [ledger.cost(f"conn_{n}").queries_reserved for n in range(6)] == [8] * 6
