"""Named points where a process can be made to die, for the fault suite. Inert unless armed."""

from __future__ import annotations

import os
import signal
from typing import Literal

Point = Literal["after_intent", "after_send", "after_answer", "after_settle"]

_armed: dict[str, int] = {}


def arm(name: str, nth: int = 1) -> None:
    """Die as by `kill -9` when `crash_point(name)` is passed for the `nth` time. The wiring arms the point
    that the settings name."""
    _armed[name] = nth


def crash_point(name: Point) -> None:
    """Does nothing unless armed."""
    if _armed and name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
