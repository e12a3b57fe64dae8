"""`reprog worker`: run jobs of the shared database until told to stop."""

from __future__ import annotations

import gc
import logging
import signal
from types import FrameType

from app import redaction
from app.settings import Settings
from app.wiring import House

log = logging.getLogger(__name__)


def run(settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT; segments in progress end at their next step."""
    redaction.install()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    house = House(settings)
    stop = house.runner.stopping  # also set when another process takes this executor id

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, on_signal)
    try:
        house.launch()
        house.courier.start()
        gc.collect()
        gc.freeze()  # see app.main
        log.info("worker %s is up", house.runner.executor_id)
        stop.wait()
    finally:
        house.close()
