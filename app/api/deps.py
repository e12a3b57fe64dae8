"""What routes are given: the services of this process, put on `app.state` by the wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
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
from app.storage.webhooks import Webhooks


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
    async def reads(self, name: str, /) -> Literal["table", "series", "sequence"] | None:
        """The records an endpoint takes; None: images. Raises NotFound."""
        ...

    async def predict(self, name: str, inputs: Sequence[object], caller: KeyRecord, /) -> Prediction:
        """Encoded images (bytes) or records (JSON values). `caller`: the key that is charged too. Raises
        NotFound, BadRequest, BudgetExhausted, Unusable."""
        ...


class Probe(Protocol):
    def __call__(
        self, connection_id: str, payer: str | None, /, *, probes: bool = False, repeats: int = 0
    ) -> Awaitable[dict[str, Any]]:
        """The billable queries of a connection test, on account of key `payer` where one is given: {labels,
        latency_ms, model_version, score_kind, cost_micros, queries, ...}; see `app.jobs.probe`."""
        ...


@dataclass(frozen=True)
class Services:
    """Everything behind the edge.

    `check_connection` raises BadRequest or Forbidden naming the member that the provider or this service
    cannot use (unknown provider, missing model field, private host), `check_webhook`
    likewise for an address to be told; `probe` tests a connection;
    `recall` looks up, for free, what a connection's model answered to images before; `vault` seals what is
    handed out to be brought back; `closing` is set when the process is about to end: what waits, answers.
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
    webhooks: Webhooks
    idempotency: Idempotency
    runner: JobRunner
    predictor: Predictor
    check_connection: Callable[[ConnectionRecord], None]
    check_webhook: Callable[[str], None]
    probe: Probe
    recall: Callable[[str, Images], Answers]
    vault: Vault
    closing: Event = field(default_factory=Event)


async def services(request: Request) -> Services:  # a plain function would cost a thread for each request
    return request.app.state.services


Wired = Annotated[Services, Depends(services)]
