"""What the gateway is given: a connection and the protocols around it; and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.contracts import Limits, Price, Provider, Reply, Reserve, Scores, Settle, WireReply, WireRequest
from app.errors import ModelChanged, ProviderError


class LabelBook(Protocol):
    """A connection's source labels, append-only, and its model version. Methods block; any thread calls."""

    def labels(self) -> tuple[str, ...]: ...

    def extend(self, names: Sequence[str]) -> tuple[str, ...]:
        """Append those of `names` that are new; returns all labels."""
        ...

    def version(self) -> str:
        """The model version answered last; "" before the first answer."""
        ...

    def set_version(self, version: str) -> None: ...


class Ledger(Protocol):
    """What the gateway needs of `app.storage.budget.Ledger`, where the methods are described."""

    def under_way(self, connection_id: str) -> int:
        """Open attempts of the account just now, over all processes."""
        ...

    def submit(self, operation: Reserve | Settle) -> Future[int]: ...

    def holds(self, attempt_id: int) -> bool: ...

    def count_cached(self, scope: str, queries: int) -> None: ...


class Sender(Protocol):
    """What the gateway needs of `app.gateway.client.Client`."""

    async def send(self, request: WireRequest) -> WireReply: ...


@dataclass(frozen=True)
class Account:
    """Everything the gateway needs of a connection. `credential` names the rate limit, not the secret."""

    connection_id: str
    credential: str
    provider: Provider
    price: Price
    limits: Limits

    def at_once(self, serving: bool) -> int:
        """Requests that may be under way together, over all processes: learning leaves an eighth to those who
        wait for a prediction."""
        return self.limits.concurrency - (0 if serving else self.limits.concurrency // 8)


@dataclass(frozen=True)
class Answers:
    """What came back for (N, H, W, 3) images. Rows of `scores` (N, K) follow the images, columns `labels`;
    NaN = censored, a row of NaN = no answer (rejected, or not cached when only the cache was asked)."""

    labels: tuple[str, ...]
    scores: Scores
    rejected: Mapping[int, ProviderError] = field(default_factory=dict[int, ProviderError])
    cached: int = 0  # images that cost nothing: answered before, or shown twice
    sent: int = 0  # queries spent, retries of unknown outcome included

    def under(self, labels: tuple[str, ...]) -> Scores:
        """(N, len(labels)) in the column order of `labels`; a label never answered is NaN."""
        column = {label: i for i, label in enumerate(self.labels)}
        wide = np.concatenate([self.scores, np.full((len(self.scores), 1), np.nan)], axis=1)
        return wide[:, [column.get(label, -1) for label in labels]]


class SourceModel:
    """The label columns and the version of the source model, as one gateway knows them. Thread-safe."""

    def __init__(self, book: LabelBook, pinned: bool, on_change: Callable[[str, str], None] | None) -> None:
        self._book, self.pinned, self._on_change = book, pinned, on_change
        self._lock = Lock()
        self.labels = book.labels()
        self.version = book.version()
        self._column = {label: i for i, label in enumerate(self.labels)}

    def columns(self, names: Sequence[str]) -> Mapping[str, int]:
        """Label -> column, for at least `names`."""
        with self._lock:
            if any(name not in self._column for name in names):
                self.labels = self._book.extend([name for name in names if name not in self._column])
                self._column = {label: i for i, label in enumerate(self.labels)}
            return self._column

    def look(self) -> None:
        """Take up the labels that others have appended."""
        with self._lock:
            self.labels = self._book.labels()
            self._column = {label: i for i, label in enumerate(self.labels)}

    def knows(self, reply: Reply) -> bool:
        """Whether every label of the reply has its column already: then `row` asks nobody."""
        columns, outcomes = self._column, reply.outcomes
        return all(isinstance(one, ProviderError) or one.keys() <= columns.keys() for one in outcomes)

    def row(self, outcome: Mapping[str, float]) -> NDArray[np.float32]:
        """One answer in column order, NaN where it says nothing."""
        columns = self._column
        if not outcome.keys() <= columns.keys():
            columns = self.columns(tuple(outcome))
        row = np.full(len(columns), np.nan, np.float32)
        row[[columns[label] for label in outcome]] = list(outcome.values())
        return row

    def expect(self, version: str) -> None:
        """Raises ModelChanged when another version has answered since `version` did (to whomever); "" expects
        none."""
        if "" not in (version, self.version) and version != self.version:
            raise ModelChanged(version, self.version)

    def known(self) -> bool:
        """Whether the version is known by now, here or to anybody else who asks this model."""
        with self._lock:
            self.version = self.version or self._book.version()
            return self.version != ""

    def answered_by(self, version: str) -> tuple[str, str] | None:
        """Remember the version that answered; (old, new) when it is not the one known so far."""
        with self._lock:
            old = self.version
            if version in ("", old):
                return None
            self._book.set_version(version)
            self.version = version
        if old == "":
            return None
        if self._on_change is not None:
            self._on_change(old, version)
        return old, version
