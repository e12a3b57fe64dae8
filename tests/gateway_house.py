"""A gateway with everything real around it: a database, and the loopback provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np
from stub_provider import Stub

from app.contracts import Images, Limits, Price
from app.gateway.client import Client
from app.gateway.query import Account, Gateway, RetryPolicy
from app.storage import tables
from app.storage.answers import Answers, insert_ignore
from app.storage.budget import Ledger
from app.storage.connections import LabelBook
from app.storage.database import migrate, open_engine, write
from app.storage.rate import Rates

PRICE = 1_200
FAST = RetryPolicy(first=0.01, longest=0.05)


class House:
    """A database, a provider, and gateways between the two."""

    def __init__(self, url: str, stub: Stub, client: Client) -> None:
        self.engine, self.stub, self.client = open_engine(url), stub, client
        self.ledger, self.rates = Ledger(self.engine), Rates(self.engine)
        for scope in ("job_1", "conn_1"):
            self.ledger.open(scope, None, None)
        with write(self.engine) as connection:
            connection.execute(
                insert_ignore(connection, tables.connections).values(
                    id="conn_1", name="n", provider="clarifai", base_url=stub.url, model={}, options={},
                    price_micros=PRICE, currency="USD", requests_per_second=1.0, concurrency=1, max_batch=1,
                    labels=[], model_version="", created_at=0.0,
                )
            )  # fmt: skip

    def gateway(
        self, *, rps: float = 5000, concurrency: int = 8, max_batch: int = 4, **options: object
    ) -> Gateway:
        account = Account(
            "conn_1", "cred", self.stub.provider(), Price(PRICE), Limits(rps, concurrency, max_batch)
        )
        return Gateway(
            account, self.ledger, Answers(self.engine), self.rates, LabelBook(self.engine, "conn_1"),
            self.client, **{"scope": "job_1", "fence": 1, "policy": FAST, **options},
        )  # fmt: skip

    def settled(self) -> None:
        """Nothing open, and both budgets are the sum of the ledger's lines."""
        lines = self.ledger.list_attempts("job_1", limit=10_000)
        assert all(line.outcome != "open" for line in lines)
        for scope in ("job_1", "conn_1"):
            cost = self.ledger.cost(scope)
            assert (cost.reserved, cost.queries_reserved) == (0, 0)
            assert cost.queries_spent == sum(line.billed for line in lines)
            assert cost.spent == PRICE * cost.queries_spent


@asynccontextmanager
async def open_house(url: str) -> AsyncGenerator[House]:
    migrate(url)
    async with Stub().serve() as stub, Client(allow_private=True) as client:
        house = House(url, stub, client)
        yield house
        house.engine.dispose()


def images(count: int, seed: int = 0) -> Images:
    return np.random.default_rng([seed, count]).integers(0, 256, (count, 4, 4, 3), np.uint8)
