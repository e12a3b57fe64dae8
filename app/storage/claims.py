"""Which images are being bought now: what keeps two jobs of one connection from paying for the same one.

A key names its connection, and every group that reserves or settles for a connection holds the lock of its
budget row: what is read here stays true until the commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import Taken
from app.storage import tables

FORGOTTEN_SECONDS = 600.0  # after so long the buyer is dead and its job not resumed: buy it again
_CHUNK = 500
_claims, _attempts, _answers = tables.claims, tables.attempts, tables.answers


def taken(connection: Connection, keys: Sequence[bytes], clock: float) -> set[bytes]:
    """Those of `keys` that an open attempt is buying, or whose answer is there already."""
    found: set[bytes] = set()
    for start in range(0, len(keys), _CHUNK):
        some = keys[start : start + _CHUNK]
        claimed = select(_claims.c.key).join(_attempts, _attempts.c.id == _claims.c.attempt_id)
        recent = _attempts.c.sent_at > clock - FORGOTTEN_SECONDS
        found |= set(connection.execute(claimed.where(_claims.c.key.in_(some), recent)).scalars())
        found |= set(connection.execute(select(_answers.c.key).where(_answers.c.key.in_(some))).scalars())
    return found


def refusal(taken: set[bytes], keys: Sequence[bytes]) -> Taken | None:
    theirs = taken.intersection(keys)
    return Taken(frozenset(theirs)) if theirs else None


def claim(connection: Connection, pairs: Sequence[tuple[bytes, int]]) -> None:
    """These keys are bought by these attempts; a forgotten claim is taken over."""
    if not pairs:
        return
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(_claims)
    mine = insert.on_conflict_do_update(
        index_elements=[_claims.c.key], set_={"attempt_id": insert.excluded.attempt_id}
    )
    connection.execute(mine, [{"key": key, "attempt_id": attempt} for key, attempt in pairs])


def release(connection: Connection, attempts: Sequence[int]) -> None:
    """These attempts are closed."""
    if attempts:
        connection.execute(delete(_claims).where(_claims.c.attempt_id.in_(attempts)))
