"""`reprog worker`: run jobs of the shared database until told to stop."""

from __future__ import annotations

import logging
import signal
import threading

from app.settings import Settings
from app.wiring import House

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT; segments in progress end at their next step."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    house = House(settings)
    try:
        house.launch()
        log.info("worker %s is up", house.runner.executor_id)
        stop.wait()
    finally:
        house.close()
