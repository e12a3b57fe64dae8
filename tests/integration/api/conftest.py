from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from api_house import FakePredictor, House, Runner, check_connection, probe

from app.api.application import create_app
from app.api.deps import Services
from app.gateway.account import Answers
from app.gateway.guard import check_url
from app.storage import database
from app.storage.audit import Audit
from app.storage.budget import Ledger
from app.storage.connections import Connections
from app.storage.datasets import Datasets
from app.storage.endpoints import Endpoints
from app.storage.idempotency import Idempotency
from app.storage.jobs import Jobs
from app.storage.keys import Keys
from app.storage.secrets import Vault
from app.storage.webhooks import Webhooks


@pytest.fixture
def environment() -> dict[str, str]:
    return {"PROVIDER_KEY": "from-the-environment"}


@pytest.fixture
def make_house(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., House]]:
    engines = []

    def make(**changes: Any) -> House:
        url = f"sqlite:///{tmp_path}/reprog.sqlite"
        database.migrate(url)
        engine = database.open_engine(url)
        engines.append(engine)
        settings = SimpleNamespace(
            **({"auth": "off", "data_dir": tmp_path, "max_upload_bytes": 4 * 2**20} | changes)
        )
        vault = Vault("a key")
        runner, endpoints = Runner(), Endpoints(engine)
        predictor = FakePredictor(endpoints)
        services = Services(
            settings=settings,
            engine=engine,
            ledger=Ledger(engine),
            connections=Connections(engine, vault, environment.get),
            datasets=Datasets(engine, tmp_path / "datasets"),
            jobs=Jobs(engine),
            endpoints=endpoints,
            keys=Keys(engine),
            audit=Audit(engine),
            webhooks=Webhooks(engine, vault),
            check_webhook=lambda url: check_url(url, True, param="url", query=True),
            idempotency=Idempotency(engine, vault),
            runner=runner,
            predictor=predictor,
            check_connection=check_connection,
            probe=probe,
            recall=lambda _, images: Answers((), np.full((len(images), 0), np.nan)),
            vault=vault,
        )
        transport = httpx.ASGITransport(create_app(services))
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", trust_env=False)
        return House(services, runner, predictor, client, settings)

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
async def house(make_house: Callable[..., House]) -> AsyncIterator[House]:
    made = make_house()
    async with made.client:
        yield made
