"""Run benchmarks and assemble RESULTS.md.   python -m benchmarks [NAME ...]

Without names all but `learning` run, a few minutes each; `learning` takes hours, and options of its own.
Sections of earlier runs stay as they are.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

from benchmarks.common import RESULTS

NAMES = ("cpu", "rate", "proxy", "pages", "ledger", "resume", "million", "scaling")
LONG = ("learning",)


def assemble() -> None:
    head = "# Benchmarks\n\nEach section says the command that made it. Figures are of that run.\n"
    sections = [path.read_text() for path in sorted(RESULTS.glob("*.md"))]
    (Path(__file__).parent / "RESULTS.md").write_text("\n".join([head, *sections]))


def main() -> None:
    named = [
        name for name in sys.argv[1:] if name in NAMES + LONG
    ]  # a number after a name is that benchmark's size
    if len(named) == 1:
        importlib.import_module(f"benchmarks.{named[0]}").main()
    for name in [] if len(named) == 1 else named or NAMES:  # each with a memory of its own
        subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)
    assemble()


if __name__ == "__main__":
    main()
