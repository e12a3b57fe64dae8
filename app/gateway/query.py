"""The one road to a provider: cache, money, rate, HTTP, answer, bill - in that order, for every query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_bytes
from typing import TypeVar, TypeVarTuple, Unpack

from app.contracts import AnswerStore, Images, Query, RateLimiter, Scores
from app.errors import KeyRefused, ProviderError
from app.gateway.account import Account, Answers, LabelBook, Ledger, Sender, SourceModel
from app.gateway.attempt import Wish
from app.gateway.pace import Pace
from app.gateway.retry import SERVING, RetryPolicy
from app.gateway.round import Round

__all__ = ["SERVING", "Account", "Answers", "Gateway", "LabelBook", "RetryPolicy"]

_MOST_THREADS = 64
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Gateway:
    """Asks one source model on behalf of one budget scope. Belongs to one event loop.

    `scope` is the budget row that pays (a job, an endpoint) beside the connection's own. With `pin_version`
    a changed model version stops everything with ModelChanged, after the answers are stored under the new
    version; without it `on_version_change(old, new)` is told. `on_progress(done, cached)` counts images.
    """

    def __init__(
        self,
        account: Account,
        ledger: Ledger,
        answers: AnswerStore,
        rates: RateLimiter,
        labels: LabelBook,
        client: Sender,
        *,
        scope: str,
        fence: int = 0,
        policy: RetryPolicy | None = None,
        pin_version: bool = False,
        compressed: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
        on_version_change: Callable[[str, str], None] | None = None,
    ) -> None:
        self.account, self.ledger, self.answers = account, ledger, answers
        self.client, self.scope, self.fence = client, scope, fence
        self.policy = policy or RetryPolicy()
        self.compressed, self.on_progress = compressed, on_progress
        self.model = SourceModel(labels, pin_version, on_version_change)
        self.at_once = account.at_once(serving=fence == 0)
        self.room = asyncio.Semaphore(self.at_once)
        self.turn = asyncio.Lock()  # one request at a time asks again while the account is crowded
        self.buying: dict[bytes, asyncio.Future[None]] = {}  # image digest -> done, whatever the outcome
        self.failures = 0  # requests that failed in a row
        self.trial = False  # half open: one request at a time finds out whether the provider is up again
        self.alone = asyncio.Lock()  # whoever is that request
        self.answered = 0  # images ever answered here
        self.clock_ahead: float | None = None  # seconds that the provider's clock was ahead of ours
        # A thread for every request that may run: those that wait for the ledger fill its next group commit.
        workers = min(_MOST_THREADS, account.limits.concurrency + 2)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="gateway")
        rate = account.limits.requests_per_second
        self.pace = Pace(rates, account.credential, rate, self.at_once, self.blocking)

    async def ask(
        self,
        images: Images,
        *,
        keep_micros: int = 0,
        keep_queries: int = 0,
        cache_only: bool = False,
        purpose: str = "step",
        payer: str | None = None,
        fresh: bool = False,
    ) -> Answers:
        """Scores of (N, H, W, 3) uint8 images, each bought at most once.

        `keep_*` of the scope's budget stay untouched; `cache_only` sends nothing; `payer` is the key that is
        charged too (default: the one its scope was opened for); `fresh` asks the source model whatever is
        known, also for images that look the same. Raises BudgetExhausted, ConfigError and its kinds,
        Throttled and Unavailable (the provider stays down), Unusable; by then every request that was under
        way has been waited for, and what it brought is stored.
        """
        wish = Wish(purpose, keep_micros, keep_queries, payer, token_bytes(16) if fresh else b"")
        return await Round(self, images, wish, cache_only).run()

    def query(
        self, labels: tuple[str, ...], *, keep_micros: int = 0, keep_queries: int = 0, purpose: str = "step"
    ) -> Query:
        """A `Query` whose columns follow `labels`; it raises the error of the first image refused."""

        async def query(images: Images) -> Scores:
            answers = await self.ask(
                images, keep_micros=keep_micros, keep_queries=keep_queries, purpose=purpose
            )
            for error in answers.rejected.values():
                raise error
            return answers.under(labels)

        return query

    async def blocking(self, call: Callable[[Unpack[Ts]], T], *given: *Ts) -> T:
        """Run a blocking call in a thread of this gateway."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *given)

    async def discover(self) -> tuple[str, ...]:
        """Ask the provider for its labels, where that is free; returns all labels known afterwards.
        Raises KeyRefused, Unavailable; a provider that cannot list its labels is no error."""
        request = self.account.provider.labels_request()
        if request is not None:
            await self.pace.slot(asyncio.sleep)
            reply = await self.client.send(request)
            try:
                names = self.account.provider.labels(reply)
            except KeyRefused:
                raise
            except ProviderError:
                names = ()
            await self.blocking(self.model.columns, names)
        return self.model.labels
