"""The ledger: every query reserved before it is sent, settled after, and never past a cap.

An *attempt* is one HTTP request. It is charged to up to three budget rows: its own scope (a job, an
endpoint), its connection (the account) and its payer (the key that asked, or that made the job); the caps of
the last two stand above. All money is integer micro-units.

Reservations and settlements that arrive while another commit is under way are taken together into the next
transaction (group commit): the callers' threads line up, one of them does the work of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Engine, and_, exists, or_, select, update

from app.contracts import Cost, Reserve, Settle
from app.errors import Conflict, NotFound, Unusable
from app.storage import audit, tables
from app.storage.audit import Note
from app.storage.booking import OPEN, Unopened, add, commit, open_scopes, under_way
from app.storage.database import now, read, write
from app.storage.together import Together

_budgets, _attempts = tables.budgets, tables.attempts


@dataclass(frozen=True)
class Attempt:
    """One line of the ledger. `billed` images count as spent; `outcome` is open | answered | partial |
    released | unknown."""

    id: int
    scope: str
    connection_id: str
    fence: int
    images: int
    price_micros: int
    purpose: str
    outcome: str
    billed: int
    http_status: int | None
    request_id: str | None
    code: str | None
    sent_at: float
    done_at: float | None
    payer: str | None = None  # the key that is charged too
    model_version: str | None = None  # as answered; None: no answer, or it does not say


class Ledger:
    """All spending of one database. Methods block (short transactions); any thread may call them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._line = Together[Reserve | Settle | Note](self._commit, "ledger")

    # ---------------------------------------------------------------- caps and sums

    def open(self, scope: str, cap: int | None, queries_cap: int | None, payer: str | None = None) -> None:
        """Let `scope` spend up to `cap` micro-units and `queries_cap` queries (None: no cap), all of it on
        account of `payer` too. A scope that is open already keeps its caps: see `set_caps`."""
        with write(self._engine) as connection:
            open_scopes(connection, [scope], cap, queries_cap, payer)

    def set_caps(self, scope: str, cap: int | None, queries_cap: int | None) -> None:
        """Raises NotFound, and Conflict when a cap is below what is spent or reserved already."""
        c = _budgets.c
        with write(self._engine) as connection:
            row = (
                connection.execute(select(_budgets).where(c.scope == scope).with_for_update())
                .mappings()
                .first()
            )
            if row is None:
                raise NotFound(f"Nothing called {scope} has a budget.")
            money, queries = row["spent"] + row["reserved"], row["queries_spent"] + row["queries_reserved"]
            if cap is not None and cap < money:
                raise Conflict(
                    "The budget is below what is spent or on its way.",
                    code="cap_below_spent",
                    hint=f"The least that works now is {money / 1e6:.6f}.",
                )
            if queries_cap is not None and queries_cap < queries:
                raise Conflict(
                    "The query limit is below what is spent or on its way.",
                    code="cap_below_spent",
                    hint=f"The least that works now is {queries}.",
                )
            connection.execute(
                update(_budgets).where(c.scope == scope).values(cap=cap, queries_cap=queries_cap)
            )

    def cost(self, scope: str) -> Cost:
        """Raises NotFound."""
        with read(self._engine) as connection:
            row = connection.execute(select(_budgets).where(_budgets.c.scope == scope)).mappings().first()
        if row is None:
            raise NotFound(f"Nothing called {scope} has a budget.")
        return Cost(**{name: value for name, value in row.items() if name not in ("scope", "payer")})

    def count_cached(self, scope: str, queries: int) -> None:
        """`queries` answers of `scope` came from the store and cost nothing."""
        with write(self._engine) as connection:
            add(connection, {scope: {"cached_queries": queries}})

    # ---------------------------------------------------------------- attempts

    def reserve(
        self,
        scope: str,
        connection_id: str,
        *,
        fence: int,
        images: int,
        price_micros: int,
        purpose: str,
        keep_micros: int = 0,
        keep_queries: int = 0,
        retried: int = 0,
        at_once: int = 0,
        keys: Sequence[tuple[bytes, bytes]] = (),
        payer: str | None = None,
    ) -> int:
        """Commit the intent to ask for `images`, of which `retried` were asked before; returns its id.

        `payer` is a key's id (default: the key that the scope was opened for). All budget rows must hold the
        price; of the scope's own cap, `keep_micros` and `keep_queries` stay
        untouched. `keys` are a claim, held until the settlement, and the answer's key for each image. With
        this one at most `at_once` attempts of the connection are open, over all processes (0: any number).

        Raises, with nothing changed: BudgetExhausted; NotFound for a scope never opened; Taken when an image
        is being bought or answered already; where the scope is a job, StaleFence when another worker has it
        and Interrupted when its user wants it to stop; Crowded; Unusable.
        """
        intent = Reserve(
            scope, connection_id, fence, images, price_micros, purpose, keep_micros, keep_queries, retried,
            at_once, keys, payer,
        )  # fmt: skip
        return self._line.do(_sound(intent))

    def settle(
        self,
        attempt_id: int,
        answers: Sequence[tuple[bytes, NDArray[np.float32]]],
        *,
        billed: int,
        unknown: int,
        outcome: str,
        http_status: int | None = None,
        request_id: str | None = None,
        code: str | None = None,
        model_version: str | None = None,
    ) -> bool:
        """Store the answers and close the attempt in one transaction: `billed` images and those whose
        outcome is `unknown` are spent, the rest is released.

        A second settlement moves no money (answers that come late are stored all the same). Returns whether
        this one closed the attempt. Raises Unusable.
        """
        settlement = Settle(
            attempt_id, answers, billed, unknown, outcome, http_status, request_id, code, model_version
        )
        return bool(self._line.do(settlement))

    def under_way(self, connection_id: str) -> int:
        """Open attempts of the account just now; no lock is taken."""
        with read(self._engine) as connection:
            return under_way(connection, {connection_id})[connection_id]

    def holds(self, attempt_id: int) -> bool:
        """Whether the attempt may still be sent: nobody gave it up, its job is this worker's and wanted."""
        a, j = _attempts.c, tables.jobs.c
        mine = and_(j.id == a.scope, or_(j.fence != a.fence, j.want != "run"))
        query = select(a.id).where(a.id == attempt_id, a.outcome == "open", ~exists().where(mine))
        with read(self._engine) as connection:
            return connection.execute(query).scalar() is not None

    def recover(self, scope: str, fence: int) -> int:
        """Close attempts left open by holders of an older fence: nobody can know their outcome, so they are
        spent. Returns how many."""
        c = _attempts.c
        return self._give_up(c.scope == scope, c.fence < fence)

    def recover_silent(self, seconds: float) -> int:
        """The same for attempts without a fence (serving) that have been open for longer than `seconds`."""
        with read(self._engine) as connection:
            before = now(connection) - seconds
        return self._give_up(_attempts.c.fence == 0, _attempts.c.sent_at < before)

    def list_attempts(self, scope: str, after: int = 0, limit: int = 100) -> list[Attempt]:
        """Lines of `scope` with an id above `after`, oldest first."""
        c = _attempts.c
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_attempts).where(c.scope == scope, c.id > after).order_by(c.id).limit(limit)
            )
            return [Attempt(**row) for row in rows.mappings()]

    # ---------------------------------------------------------------- transactions

    def _give_up(self, *which: ColumnElement[bool]) -> int:
        c = _attempts.c
        with write(self._engine) as connection:
            open_ones = connection.execute(select(c.id, c.images).where(OPEN, *which)).all()
            lost = [Settle(i, (), 0, images, "unknown", None, None, "abandoned") for i, images in open_ones]
            return sum(result == 1 for result in commit(connection, lost)) if lost else 0

    def submit(self, operation: Reserve | Settle | Note) -> Future[int]:
        """`reserve`, `settle` or a line of the audit log without blocking; the future's value is theirs."""
        return self._line.submit(_sound(operation))

    def _commit(self, group: Sequence[Reserve | Settle | Note]) -> list[int | Exception]:
        """One transaction. What cannot be written, for another reason than that nothing can, spoils its own
        operation only: the group is done again one by one."""
        try:
            return self._write(group)
        except Unusable:
            raise
        except Exception:
            if len(group) == 1:
                raise
        return [self._alone(operation) for operation in group]

    def _alone(self, operation: Reserve | Settle | Note) -> int | Exception:
        try:
            return self._write([operation])[0]
        except Exception as error:
            return error

    def _write(self, group: Sequence[Reserve | Settle | Note]) -> list[int | Exception]:
        booked = [operation for operation in group if not isinstance(operation, Note)]
        notes = [operation for operation in group if isinstance(operation, Note)]
        while True:
            try:
                with write(self._engine) as connection:
                    results = iter(commit(connection, booked) if booked else ())
                    audit.put(connection, notes)
                break
            except Unopened as missing:
                with write(self._engine) as connection:
                    open_scopes(connection, missing.scopes, None, None)
        return [1 if isinstance(operation, Note) else next(results) for operation in group]


def _sound(operation: Reserve | Settle | Note) -> Reserve | Settle | Note:
    if isinstance(operation, Reserve) and (operation.images < 1 or operation.price_micros < 0):
        raise ValueError("an attempt has at least one image and no negative price")
    return operation
