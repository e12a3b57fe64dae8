"""Ids: a prefix and 26 characters that sort by the time they were made."""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: sorts as the numbers do
_RANDOM_BITS = 80
_lock = threading.Lock()
_last = 0


def new(prefix: str) -> str:
    """`prefix` + 48 bits of milliseconds + 80 random bits. Later ids of one process are always greater."""
    global _last
    fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    with _lock:
        _last = number = max(fresh, _last + 1)
    return prefix + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
