"""When to ask again, after how long, and when to give up."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from app.errors import Doubtful, ProviderError, QuotaExhausted, Throttled


@dataclass(frozen=True)
class RetryPolicy:
    """Waits grow exponentially with full jitter; a wait the provider asks for is kept exactly.

    Throttling is no failure: it may go on for `patience` seconds in total. A wait above `quota_seconds` is a
    quota that ran out, not a rate. After `breaker` failures in a row, over all requests, each of which may
    have been billed, the provider is down (at least three rounds of all requests that may run at once).
    """

    tries: int = 12
    patience: float = 600.0
    quota_seconds: float = 120.0
    breaker: int = 16
    first: float = 0.25  # upper bound of the first wait, seconds; doubles each time
    longest: float = 10.0
    grace: float = 60.0  # how long a cancelled ask waits for replies under way: they are paid

    def judge(self, error: Exception) -> Exception:
        """`error`, or QuotaExhausted when the wait it asks for is too long to be a rate limit."""
        wait = error.retry_after if isinstance(error, Throttled) else None
        if not isinstance(error, Throttled) or wait is None or wait <= self.quota_seconds:
            return error
        return QuotaExhausted(
            f"The provider asks to wait {wait:.0f} s: {error.detail}",
            hint="The account's quota seems to be used up; resume when it is renewed.",
            retry_after=wait,
            request_id=error.request_id,
            http_status=error.http_status,
        )


#: Patience with somebody who waits for a prediction.
SERVING = RetryPolicy(tries=4, patience=10.0, quota_seconds=10.0, longest=1.0, grace=5.0)


_DOUBTFUL_TRIES = 3


class _Patience:
    """How often one request failed and how long it was throttled; tenacity's `wait` and `stop`."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._throttles = 0
        self._throttled = 0.0

    def wait(self, state: RetryCallState) -> float:
        error, policy = _error(state), self._policy
        if isinstance(error, Throttled):
            self._throttles += 1
            backoff = random.uniform(0.5, 1.0) * min(policy.longest, 2.0 ** (self._throttles - 1))
            asked = error.retry_after
            wait = backoff if asked is None else max(asked, backoff / 8)  # "0" again and again is no answer
            self._throttled += wait
            return wait
        self._failures += 1
        # Full jitter: workers that failed together do not come back together.
        jitter = random.uniform(0.0, min(policy.longest, policy.first * 2.0 ** (self._failures - 1)))
        asked = error.retry_after if isinstance(error, ProviderError) else None
        return jitter if asked is None else min(asked, policy.quota_seconds) + jitter

    def stop(self, state: RetryCallState) -> bool:
        tries = _DOUBTFUL_TRIES if isinstance(_error(state), Doubtful) else self._policy.tries
        return self._failures >= tries or self._throttled > self._policy.patience


def retrying(
    policy: RetryPolicy,
    *,
    sleep: Callable[[float], Awaitable[None]],
    throttled: Callable[[float], Awaitable[None]],
) -> AsyncRetrying:
    """Calls a coroutine function until it returns or raises for good; the last error is raised as it is.

    `throttled(seconds)` is awaited before each wait that a rate limit asked for.
    """
    patience = _Patience(policy)

    async def before(state: RetryCallState) -> None:
        if isinstance(_error(state), Throttled):
            await throttled(state.upcoming_sleep)

    return AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.retryable),
        wait=patience.wait,
        stop=patience.stop,
        before_sleep=before,
        sleep=sleep,
        reraise=True,
    )


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
