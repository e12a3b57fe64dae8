"""Which images are being bought now: what keeps two jobs of one connection from paying for the same one.

A claim is an answer's key without a version, so it names its connection; and every group that reserves or
settles for a connection holds the lock of its budget row: what is read here stays true until the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, delete, literal_column, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import Taken
from app.storage import tables
from app.storage.statement import Statement

FORGOTTEN_SECONDS = 600.0  # after so long the buyer is dead and its job not resumed: buy it again
_CHUNK = 500
_claims, _attempts, _answers = tables.claims, tables.attempts, tables.answers


@dataclass
class Known:
    """Claims that open attempts hold, and keys whose answer is there already."""

    claimed: set[bytes] = field(default_factory=set[bytes])
    answered: set[bytes] = field(default_factory=set[bytes])

    def refusal(self, keys: Sequence[tuple[bytes, bytes]]) -> Taken | None:
        """Why an attempt for these images would buy what is bought, or None."""
        theirs = [claim for claim, key in keys if claim in self.claimed or key in self.answered]
        return Taken(frozenset(theirs)) if theirs else None


_KNOWN = Statement(
    union_all(
        select(_claims.c.key, literal_column("1").label("held"))
        .join(_attempts, _attempts.c.id == _claims.c.attempt_id)
        .where(
            _attempts.c.sent_at > bindparam("since"), _claims.c.key.in_(bindparam("claims", expanding=True))
        ),
        select(_answers.c.key, literal_column("0")).where(
            _answers.c.key.in_(bindparam("keys", expanding=True))
        ),
    )
)
_RELEASE = Statement(delete(_claims).where(_claims.c.attempt_id.in_(bindparam("attempts", expanding=True))))


def _claim(insert: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    return insert.on_conflict_do_update(
        index_elements=[_claims.c.key], set_={"attempt_id": insert.excluded.attempt_id}
    )


_CLAIM = Statement(
    {"sqlite": _claim(sqlite.insert(_claims)), "postgresql": _claim(postgresql.insert(_claims))}
)


def taken(connection: Connection, keys: Sequence[tuple[bytes, bytes]], clock: float) -> Known:
    """What is known of these pairs of a claim and an answer's key."""
    known, since = Known(), clock - FORGOTTEN_SECONDS
    for start in range(0, len(keys), _CHUNK):
        some = keys[start : start + _CHUNK]
        claims, answers = [claim for claim, _ in some], [key for _, key in some]
        for key, held in _KNOWN.rows(connection, since=since, claims=claims, keys=answers):
            (known.claimed if held else known.answered).add(key)
    return known


def claim(connection: Connection, pairs: Sequence[tuple[bytes, int]]) -> None:
    """These keys are bought by these attempts; a forgotten claim is taken over."""
    _CLAIM.each(connection, [{"key": key, "attempt_id": attempt} for key, attempt in pairs])


def release(connection: Connection, attempts: Sequence[int]) -> None:
    """These attempts are closed."""
    if attempts:
        _RELEASE.rows(connection, attempts=list(attempts))
