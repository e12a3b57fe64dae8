"""What routes are given: the services of this process, put on `app.state` by the wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from fastapi import Depends, Request
from sqlalchemy import Engine

from app.contracts import Images, JobRunner, TargetScores
from app.gateway.account import Answers
from app.storage.audit import Audit
from app.storage.budget import Ledger
from app.storage.connections import ConnectionRecord, Connections
from app.storage.datasets import Datasets
from app.storage.endpoints import Endpoints
from app.storage.idempotency import Idempotency
from app.storage.jobs import Jobs
from app.storage.keys import KeyRecord, Keys
from app.storage.secrets import Vault


class EdgeSettings(Protocol):
    """The settings that the edge reads."""

    @property
    def auth(self) -> Literal["off", "keys"]: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def max_upload_bytes(self) -> int: ...


class Prediction(Protocol):
    """(N, T) target scores under `labels` (T,), and what they cost."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> TargetScores: ...
    @property
    def queries(self) -> int: ...
    @property
    def cost_micros(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...


class Predictor(Protocol):
    async def predict(self, name: str, files: list[bytes], caller: KeyRecord, /) -> Prediction:
        """`caller`: the key that is charged too. Raises NotFound, BadRequest, BudgetExhausted, Unusable."""
        ...


@dataclass(frozen=True)
class Services:
    """Everything behind the edge.

    `check_connection` raises BadRequest or Forbidden naming the member that the provider or this service
    cannot use (unknown provider, missing model field, private host); `probe` sends a connection's one
    billable test query, on account of a key where one is given, and
    returns {labels, latency_ms, model_version, score_kind, cost_micros, queries};
    `recall` looks up, for free, what a connection's model answered to images before; `vault` seals what is
    handed out to be brought back.
    """

    settings: EdgeSettings
    engine: Engine
    ledger: Ledger
    connections: Connections
    datasets: Datasets
    jobs: Jobs
    endpoints: Endpoints
    keys: Keys
    audit: Audit
    idempotency: Idempotency
    runner: JobRunner
    predictor: Predictor
    check_connection: Callable[[ConnectionRecord], None]
    probe: Callable[[str, str | None], Awaitable[dict[str, Any]]]
    recall: Callable[[str, Images], Answers]
    vault: Vault


def services(request: Request) -> Services:
    return request.app.state.services


Wired = Annotated[Services, Depends(services)]
