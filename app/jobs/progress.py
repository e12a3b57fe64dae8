"""How far a job is and when it will be done: measured, never promised."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from statistics import median
from typing import Any

RECALL, VERDICT = "recall", "verdict"  # phases in which nothing is asked any more


def rfc3339(seconds: float) -> str:
    """UTC epoch seconds -> RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Meter:
    """Queries per second over the last observations, and the time left at that speed."""

    def __init__(self, planned: int, window: int = 30) -> None:
        self.planned = max(planned, 1)
        self._seen: deque[tuple[float, int]] = deque(maxlen=window)
        self._reading: tuple[float, float] | None = None  # seconds so far, share

    def read_back(self, seconds: float, share: float) -> None:
        """So much of the stored answers that are wanted has been read, in so many seconds; 1: all."""
        self._reading = (seconds, share) if share < 1 else None

    def progress(self, phase: str, done: int, now: float, held_until: float = 0.0) -> dict[str, Any]:
        """The `progress` member of the job object after `done` paid queries at UTC time `now`, when nothing
        may be sent before `held_until`."""
        self._seen.append((now, done))
        left = max(self.planned - done, 0)
        return {
            "phase": phase,
            "fraction": round(min(done / self.planned, 0.999), 4),
            "queries_done": done,
            "queries_planned": self.planned,
            "eta": self._eta_of_reading() if phase in (RECALL, VERDICT) else self._eta(left),
            "throttled_until": rfc3339(held_until) if held_until > now else None,
            "last_progress_at": rfc3339(now),
        }

    def _eta(self, left: int) -> dict[str, float] | None:
        """Seconds left: p50 at the median speed seen, p90 at the slowest tenth."""
        pairs = zip(self._seen, list(self._seen)[1:], strict=False)
        speeds = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs if b[0] > a[0] and b[1] > a[1])
        if not speeds:
            return None
        slow = speeds[len(speeds) // 10]
        return {"p50": round(left / median(speeds), 1), "p90": round(left / slow, 1)}

    def _eta_of_reading(self) -> dict[str, float] | None:
        """Seconds left at the speed so far; None where that is not known, as while a verdict is made."""
        if self._reading is None or not self._reading[1]:
            return None
        seconds, share = self._reading
        left = round(seconds * (1 - share) / share, 1)
        return {"p50": left, "p90": left}


def finished(done: int, planned: int, now: float) -> dict[str, Any]:
    """The `progress` of a job that is over."""
    return {
        "phase": "done",
        "fraction": 1.0,
        "queries_done": done,
        "queries_planned": planned,
        "eta": {"p50": 0.0, "p90": 0.0},
        "throttled_until": None,
        "last_progress_at": rfc3339(now),
    }
