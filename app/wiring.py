"""Settings -> concrete classes. Constructs, never decides."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from app import providers, telemetry
from app.api.deps import Services
from app.contracts import Images, Price, Provider
from app.errors import BadRequest, ReprogError, StaleFence, Unusable
from app.gateway import faults, guard
from app.gateway.account import Answers as KnownAnswers
from app.gateway.client import Client
from app.gateway.query import SERVING, Account, Gateway, RetryPolicy
from app.gateway.recall import recall
from app.jobs.bench import Bench, Source
from app.jobs.canary import Canary
from app.jobs.courier import Courier
from app.jobs.probe import probe
from app.jobs.revive import Reviver
from app.jobs.run import NOBODY, run_segment
from app.jobs.runner import DbosRunner
from app.jobs.serve import Predictor
from app.settings import Settings, environment
from app.storage import database
from app.storage.answers import Answers
from app.storage.audit import Audit
from app.storage.budget import Ledger
from app.storage.connections import ConnectionRecord, Connections
from app.storage.datasets import Datasets
from app.storage.endpoints import Endpoints
from app.storage.executors import Executors
from app.storage.idempotency import Idempotency
from app.storage.jobs import Jobs
from app.storage.keys import Keys
from app.storage.rate import Rates
from app.storage.secrets import Vault, key_file
from app.storage.webhooks import Webhooks

log = logging.getLogger(__name__)

UPKEEP_SECONDS = 15.0
SILENT_SECONDS = 200.0  # then whoever was sending for an endpoint is dead: longer than wait and request take


@dataclass
class House:
    """Everything one process has, over one database. Each part is made when it is first asked for."""

    settings: Settings

    def __post_init__(self) -> None:
        self._closed = threading.Event()
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        if self.settings.fault:
            name, _, nth = self.settings.fault.partition(":")
            faults.arm(name, int(nth or 1))
        if self.settings.otel:
            telemetry.start()
        database.migrate(self.settings.database())
        self.engine = database.open_engine(self.settings.database())
        self.ledger, self.answers, self.rates = Ledger(self.engine), Answers(self.engine), Rates(self.engine)
        self.jobs, self.endpoints, self.keys = Jobs(self.engine), Endpoints(self.engine), Keys(self.engine)
        self.vault, self.closing = Vault(self._secret_key()), threading.Event()
        self.idempotency = Idempotency(self.engine, self.vault)
        self.datasets = Datasets(self.engine, self.settings.data_dir / "datasets")
        self.connections = Connections(self.engine, self.vault, environment)
        self.webhooks = Webhooks(self.engine, self.vault)
        self.audit = Audit(self.engine, self.ledger.submit)
        self.courier = Courier(
            self.webhooks,
            allow_private=self.settings.allow_private_hosts,
            hourly=[lambda: self.audit.prune(self.settings.audit_days)],
        )

    @cached_property
    def runner(self) -> DbosRunner:
        return DbosRunner(
            self.settings.engine_database(),
            self.settings.executor_id,
            Executors(self.engine),
            on_dead=self.orphaned,
        )

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.endpoints, self.jobs, self._serving_gateway)

    def price(self, connection_id: str) -> Price:
        return self.connections.get(connection_id).price

    def source(self, connection_id: str) -> Source:
        connection = self.connections.get(connection_id)
        info = self.provider(connection, secret="").info
        labels = len(connection.labels) or len(info.labels)
        return Source(
            connection.price, connection.limits, info.score_kind, info.input_size, labels, info.enlarges_below
        )

    def provider(self, connection: ConnectionRecord, secret: str | None = None) -> Provider:
        """The translator of a connection. Raises BadRequest when its secret cannot be had."""
        lookup = environment if secret is None else None
        if secret is None:
            secret = self.connections.secret(connection.id)
        return providers.make(
            connection.provider, connection.base_url, connection.model, secret, connection.options, lookup
        )

    def check_connection(self, connection: ConnectionRecord) -> None:
        """Raises BadRequest or Forbidden for what this provider, or this service, cannot use."""
        guard.check_url(connection.base_url, self.settings.allow_private_hosts)
        self.provider(connection, secret="")

    async def probe(
        self, connection_id: str, payer: str | None = None, *, probes: bool = False, repeats: int = 0
    ) -> dict[str, Any]:
        """Billable queries, one unless more are asked for; see `app.jobs.probe`."""
        async with self.gateway(connection_id, connection_id, 0, SERVING) as gateway:
            return await probe(gateway, payer, probes=probes, repeats=repeats)

    def check_webhook(self, url: str) -> None:
        """Raises BadRequest or Forbidden for an address that this service may not call."""
        guard.check_url(url, self.settings.allow_private_hosts, param="url", query=True)

    def healthy(self, connection_id: str) -> bool:
        """Whether the provider answers a free request; False where it has none. Raises ReprogError."""

        async def ask() -> bool:
            provider = await asyncio.to_thread(self.provider, self.connections.get(connection_id))
            request = provider.labels_request()
            if request is None:
                return False
            async with Client(allow_private=self.settings.allow_private_hosts) as client:
                provider.labels(await client.send(request))
            return True

        return asyncio.run(ask())

    def recall(self, connection_id: str, images: Images) -> KnownAnswers:
        """What the connection's model answered before; see `app.gateway.recall`."""
        connection = self.connections.get(connection_id)
        info = self.provider(connection, secret="").info
        version, labels = connection.model_version, connection.labels
        return recall(connection_id, info, version, labels, self.answers, images)

    def services(self) -> Services:
        """What the API is given."""
        return Services(
            settings=self.settings,
            engine=self.engine,
            ledger=self.ledger,
            connections=self.connections,
            datasets=self.datasets,
            jobs=self.jobs,
            endpoints=self.endpoints,
            keys=self.keys,
            audit=self.audit,
            webhooks=self.webhooks,
            idempotency=self.idempotency,
            runner=self.runner,
            predictor=self.predictor,
            check_connection=self.check_connection,
            check_webhook=self.check_webhook,
            probe=self.probe,
            recall=self.recall,
            vault=self.vault,
            closing=self.closing,
        )

    # ---------------------------------------------------------------- gateways

    @asynccontextmanager
    async def gateway(
        self,
        scope: str,
        connection_id: str,
        fence: int,
        policy: RetryPolicy | None = None,
        *,
        pin: bool = False,
    ) -> AsyncGenerator[Gateway]:
        """A gateway of the running event loop, with an HTTP client of its own."""
        connection = await asyncio.to_thread(self.connections.get, connection_id)
        provider = await asyncio.to_thread(self.provider, connection)
        account = Account(connection_id, connection_id, provider, connection.price, connection.limits)
        book = await asyncio.to_thread(self.connections.book, connection_id)
        async with Client(
            allow_private=self.settings.allow_private_hosts, connections=connection.limits.concurrency
        ) as client:
            yield Gateway(
                account, self.ledger, self.answers, self.rates, book, client,
                scope=scope, fence=fence, policy=policy, pin_version=pin,
            )  # fmt: skip

    @asynccontextmanager
    async def _job_gateway(self, job_id: str, connection_id: str, fence: int) -> AsyncGenerator[Gateway]:
        async with self.gateway(job_id, connection_id, fence, pin=True) as gateway:
            yield gateway

    @asynccontextmanager
    async def _serving_gateway(self, scope: str, connection_id: str) -> AsyncGenerator[Gateway]:
        async with self.gateway(scope, connection_id, 0, SERVING) as gateway:
            yield gateway

    # ---------------------------------------------------------------- the worker

    def bench(self) -> Bench:
        return Bench(
            jobs=self.jobs,
            ledger=self.ledger,
            endpoints=self.endpoints,
            dataset_folder=self.datasets.folder,
            source=self.source,
            gateway=self._job_gateway,
            stopping=self.runner.stopping.is_set,
        )

    def launch(self) -> None:
        """Start running jobs in threads of this process."""
        bench = self.bench()

        def work(job_id: str) -> bool:
            with telemetry.span("job segment", reprog__job_id=job_id):
                return asyncio.run(run_segment(job_id, bench))

        self.runner.launch(work, self._segment_failed)
        Reviver(self.jobs, self.runner, self.healthy, beside=self._upkeep).start(self.runner.stopping)
        Canary(self.endpoints, self.jobs, self._serving_gateway).start(self.runner.stopping)

    def orphaned(self, job_id: str) -> None:
        """The job's worker died: what it was buying is unknown, and free for others to buy. They may wait for
        it in every slot there is, so this cannot wait until the job itself runs again."""
        self.ledger.recover(job_id, NOBODY)

    def _upkeep(self) -> None:
        """What the dead left behind: requests of an endpoint, jobs that nobody was told of."""
        self.ledger.recover_silent(SILENT_SECONDS)
        self.runner.ensure(self.jobs.live())

    def _segment_failed(self, job_id: str, error: Exception) -> None:
        """A fault of ours: the job fails with a stable code; the log has the rest. While the database is
        away nothing is recorded, and what this raises makes the runner try again after a pause."""
        if isinstance(error, Unusable):
            raise error
        job = self.jobs.get(job_id)
        if isinstance(error, StaleFence) or job.over:
            return
        self.jobs.fail(
            job_id,
            job.fence,
            error if isinstance(error, ReprogError) else ReprogError(
                "The job stopped on an internal error.",
                code="internal_error",
                hint="The worker's log has the trace; clone the job to try again: paid answers are kept.",
            ),
        )  # fmt: skip

    def watch(self) -> None:
        """Close what dead servers left under way, now and then: there may be no worker to do it."""

        def keep() -> None:
            while not self._closed.wait(UPKEEP_SECONDS):
                try:
                    self.ledger.recover_silent(SILENT_SECONDS)
                except Unusable:
                    log.exception("looking for requests that nobody waits for failed")

        self.ledger.recover_silent(SILENT_SECONDS)
        threading.Thread(target=keep, name="upkeep", daemon=True).start()

    def stop(self) -> None:
        """The end is near: nothing new is begun. Safe in a signal handler."""
        self.closing.set()
        if "runner" in self.__dict__:
            self.runner.stopping.set()

    def close(self) -> None:
        self.courier.close()
        if "runner" in self.__dict__:
            self.runner.close()
        self._closed.set()
        self.engine.dispose()
        telemetry.stop()

    def reseal(self) -> dict[str, int]:
        """Seal all that is sealed with the first of our keys; how much there was of each kind. Raises
        BadRequest `secret_unreadable`, with nothing lost."""
        done = {
            "connections": self.connections.reseal(),
            "webhooks": self.webhooks.reseal(),
            "kept_answers": self.idempotency.reseal(),
        }
        Audit(self.engine).add(
            key_id="shell", action="rotate_secrets", resource="", request_id="", status=200
        )
        return done

    def _secret_key(self) -> str:
        settings = self.settings
        if settings.secret_key is not None:
            return settings.secret_key.get_secret_value()
        if settings.secret_key_file is not None:
            return _read(settings.secret_key_file)
        return key_file(settings.data_dir / "secret.key")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise BadRequest(
            f"The secret key file cannot be read: {error.strerror}.",
            code="secret_key_missing",
            param="REPROG_SECRET_KEY_FILE",
            hint="Point REPROG_SECRET_KEY_FILE at a file this user may read.",
        ) from error
