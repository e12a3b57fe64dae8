"""How much each method learns per query, on every task and source model.

    python -m benchmarks learning [--only TEXT ...] [--queries N ...] [--seeds N ...] [--processes N]
                                  [--again] [--list] [--report] [--extras NAME ...]

About three hours on two cores. Finished cells and answers are kept in .bench-cache, so that it goes on where
it was stopped; `--again` runs the chosen cells once more. `--report` writes the report from what is there;
`--extras` measures what is not a cell: maths, http, answers (a picture), estimator, whitebox. Without
options all cells and all extras are run that are not there yet.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

from benchmarks.learning import grid, maths, plots, report


def main(arguments: list[str] | None = None) -> None:
    """Run what is not finished, then write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TEXT", help="cells whose name holds one of these, * for anything"
    )
    parser.add_argument("--queries", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--processes", type=int, default=grid.PROCESSES)
    parser.add_argument("--again", action="store_true", help="run the chosen cells though they are finished")
    parser.add_argument("--list", action="store_true", help="name the chosen cells and stop")
    parser.add_argument("--extras", nargs="+", choices=list(EXTRAS), default=[])
    parser.add_argument("--report", action="store_true", help="run nothing")
    args = parser.parse_args(sys.argv[2:] if arguments is None else arguments)
    wanted = [
        cell
        for cell in grid.cells()
        if (not args.only or any(fnmatch(cell.name, f"*{text}*") for text in args.only))
        and (not args.queries or cell.queries in args.queries)
        and (not args.seeds or cell.seed in args.seeds)
    ]
    if args.list:
        print(*(cell.name for cell in wanted), sep="\n")
        return
    everything = len(sys.argv) <= 2 and arguments is None
    if everything or not (args.report or args.extras):
        grid.work(wanted, args.processes, args.again)
    for name in [*EXTRAS] if everything else args.extras:
        if args.extras or report.extra(name) is None:
            _measure(name)
    report.write()


def _measure(name: str) -> None:
    """One extra; what its packages are missing for is said, not hidden."""
    try:
        found = EXTRAS[name]()
    except ImportError as error:
        print(f"{name} is left out: {error} (pip install 'reprog[bench]')", flush=True)
        return
    report.keep_extra(name, found)
    print(f"{name}: {found['sentence']}", flush=True)


def _heavy(module: str, function: str) -> Callable[[], dict[str, Any]]:
    """What loads torch or starts servers is imported only when asked for."""
    return lambda: getattr(importlib.import_module(f"benchmarks.learning.{module}"), function)()


EXTRAS: dict[str, Callable[[], dict[str, Any]]] = {
    "maths": maths.refit,
    "http": _heavy("http", "compare"),
    "answers": plots.before_and_after,
    "estimator": _heavy("whitebox", "estimator"),
    "whitebox": _heavy("whitebox", "measure"),
}
