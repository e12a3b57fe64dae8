"""How much each method learns per query, on every task and source model.

    python -m benchmarks learning [--only TEXT ...] [--queries N ...] [--seeds N ...] [--processes N]
                                  [--again] [--list] [--report]

About three hours on two cores. Finished cells and answers are kept in .bench-cache, so that it goes on where
it was stopped; `--again` runs the chosen cells once more. `--report` writes the report from what is there.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatch

from benchmarks.learning import grid, report


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
    if not args.report:
        grid.work(wanted, args.processes, args.again)
    report.write()
