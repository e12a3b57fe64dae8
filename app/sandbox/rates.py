"""Counting over a sliding second."""

import math
from collections import deque


class RateWindow:
    """Admits at most `limit` requests in any window of one second; refused ones do not count."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()

    def admit(self, now: float, limit: float) -> bool:
        """Whether a request at `now` (seconds, never falling) may pass; 0 means no limit.

        Below one per second the window grows to hold one request.
        """
        if limit == 0:
            return True
        span, room = (1.0, math.floor(limit)) if limit >= 1 else (1.0 / limit, 1)
        while self._admitted and self._admitted[0] <= now - span:
            self._admitted.popleft()
        if len(self._admitted) >= room:
            return False
        self._admitted.append(now)
        return True


class Peak:
    """The most events seen in any sliding second."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self.highest = 0

    def count(self, now: float) -> None:
        """Note one event at `now`, in seconds."""
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        self._recent.append(now)
        self.highest = max(self.highest, len(self._recent))
