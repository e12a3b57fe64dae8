"""From kill -9 to the next query, with the timings of service.

python -m benchmarks resume
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "faults")]

from fault_crew import Crew, race  # noqa: E402
from fault_source import running_source  # noqa: E402

from benchmarks.common import databases, save, table  # noqa: E402


def start(team: Crew, name: str) -> subprocess.Popen[bytes]:
    """`reprog worker` as a user starts it."""
    environment = os.environ | team.environment | {"REPROG_EXECUTOR_ID": name}
    with team.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", "worker"], env=environment, stdout=log, stderr=log
        )


def until_next(team: Crew, seconds: float = 90) -> float:
    """Seconds until the source model is asked again."""
    began, seen = time.monotonic(), team.source.requests
    while team.source.requests == seen:
        assert time.monotonic() < began + seconds, team.tail()
        time.sleep(0.02)
    return time.monotonic() - began


def one(url: str, same_slot: bool) -> float:
    with running_source() as source, tempfile.TemporaryDirectory() as folder:
        source.delay = lambda n: 1.5  # long enough that the job is in its middle
        team = Crew(url, Path(folder), source)
        team.job(1, **race())
        first = start(team, "first")
        other = None
        try:
            while source.requests < 10:
                time.sleep(0.05)
            if not same_slot:
                other = start(team, "second")
                time.sleep(8)  # up, and idle
            first.kill()
            first.wait()
            time.sleep(0.5)  # what was on the wire has arrived
            if same_slot:
                other = start(team, "first")
            return until_next(team) + 0.5
        finally:
            for process in (first, other):
                if process is not None:
                    process.kill()
                    process.wait()
            team.house.close()


def main() -> None:
    rows = list[tuple[object, ...]]()
    for name in ("SQLite", "PostgreSQL"):
        for same in (True, False):
            with databases() as urls:
                rows.append(
                    (
                        name,
                        "same slot, started again at once" if same else "another worker, already up",
                        f"{one(urls[name], same):.1f}",
                    )
                )
    text = table(("database", "who goes on", "s to the next query"), rows)
    text += "\n\nGoals: 5 s and 40 s. The first includes the start of a Python process; a worker counts as"
    text += " dead after 30 s of silence."
    save("resume", "Resume after kill -9", "python -m benchmarks resume", text)


if __name__ == "__main__":
    main()
