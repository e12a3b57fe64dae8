"""No secret in a log, whoever writes the line and whichever handler prints it.

Two nets: the secrets that this process has read (`remember`), wherever they stand in a line or a trace, and
the forms that our own secrets have (`rk_...`, `whsec_...`, bearer headers), known or not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Any
from urllib.parse import quote

HIDDEN = "[hidden]"
_SHORTEST = 6  # shorter ones would blot out ordinary words
_MOST = 10_000
_FORMS = (
    r"\brk_[A-Za-z0-9_-]{16,}|\bwhsec_[A-Za-z0-9+/=]{16,}|\bgAAAAA[A-Za-z0-9_=-]{40,}"
    r"|(?i:(?<=\bbearer )|(?<=\bauthorization: key ))[A-Za-z0-9._~+/=-]{8,}"
)

_known: set[str] = set()
_pattern = re.compile(_FORMS)
_lock = Lock()


def remember(secret: str) -> None:
    """From now on `secret`, and each part of it around a colon, is hidden in every log line."""
    global _pattern
    parts = {part for whole in (secret, *secret.split(":")) for part in (whole, quote(whole, safe=""))}
    with _lock:
        fresh = {part for part in parts if len(part) >= _SHORTEST} - _known
        if not fresh or len(_known) >= _MOST:
            return
        _known.update(fresh)
        longest_first = sorted(_known, key=len, reverse=True)
        _pattern = re.compile("|".join([*map(re.escape, longest_first), _FORMS]))


def redact(text: str) -> str:
    """`text` without secrets."""
    return _pattern.sub(HIDDEN, text)


def install() -> None:
    """Hide secrets in every record of every logger of this process, traces included. Once is enough."""
    plain = logging.getLogRecordFactory()
    if not getattr(plain, "redacts", False):
        factory = _redacting(plain)
        factory.redacts = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(factory)


def _redacting(plain: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def factory(*given: Any, **named: Any) -> logging.LogRecord:  # noqa: ANN401
        record = plain(*given, **named)
        try:
            said = record.getMessage()
        except Exception:  # a wrong format string: the handler will tell, with the arguments
            said, record.args = f"{record.msg!s} {record.args!r}", None
            record.msg = said
        if (clean := redact(said)) != said:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(_trace(record.exc_info))
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return record

    return factory


def _trace(
    found: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
) -> str:
    return logging.Formatter().formatException(found)
