"""Write the checkpoints that later releases must still resume: tests/fixtures/release-VERSION.

    python scripts/make_checkpoint_fixtures.py tests/fixtures/release-0.1

Run it once per release whose state or program format is new. Never overwrite an older release's.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conformance.methods import Source, play, problem

from app.methods import METHODS, make
from app.methods.state import to_bytes
from app.reprogramming import program as programs


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in METHODS:
        source, method = Source(), make(name, {})
        task = problem(source)
        states = list(islice(play(method, task, source), 3))
        (folder / f"{name}.npz").write_bytes(to_bytes(states[-1]))
        (folder / f"{name}.safetensors").write_bytes(programs.to_bytes(method.program(task, states[-1])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
