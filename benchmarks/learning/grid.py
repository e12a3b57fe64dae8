"""Which cells there are, the most telling first, and how they are run: in two processes, resumable."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from app.errors import BadRequest
from benchmarks.learning.cell import Cell, run
from benchmarks.learning.sources import CACHE
from benchmarks.learning.tasks import MissingData

FINISHED = CACHE / "cells.jsonl"  # one line per finished cell, the last of a name counts
PROCESSES = 2
SEEDS = (0, 1, 2)
FOLDS = tuple(range(10))  # of abide
BUDGETS = (2_000, 10_000)
LEAST, MOST = 500, 50_000
TENTH = 1_000  # of the queries that bar gets

FULL = (("digits", "mod5"), ("digits", "img1000"), ("melanoma", "mod5"))
OTHERS = (
    ("squares", "img1000"),
    ("ham7", "img1000"),
    ("melanoma", "nsfw2"),
    ("messidor", "img1000"),
    ("ecg200", "mod5"),
)
SOME_IMAGES = (("melanoma", "mod5"), ("melanoma", "nsfw2"))  # 1,000 queries do not learn from all there are
CONNECTOMES = tuple(("abide", source) for source in ("mod5", "nsfw2", "signs43", "img1000"))
DESCENTS = ("spsa", "nes", "cma_es", "zoo", "zoo-newton", "prior")
ABLATIONS = ("bar q=1", "bar q=25", "bar m=1", "bar m=3", "bar cross-entropy", "bar random")
ABLATED = ("digits", "img1000")
VIEWS = 4  # queries per prediction where nothing else is said

#: Goals for `auto` on scores alone: (task, source, queries per prediction, queries) -> mean accuracy.
GOALS = {
    ("digits", "mod5", 1, 10_000): 0.46,
    ("digits", "mod5", 2, 10_000): 0.68,
    ("digits", "mod5", 4, 10_000): 0.78,
    ("digits", "mod5", 8, 10_000): 0.88,
    ("digits", "img1000", 2, 2_000): 0.955,
    ("melanoma", "mod5", 4, 10_000): 0.82,
    ("ham7", "img1000", 8, 10_000): 0.57,
}


def cells() -> list[Cell]:
    """All of them, in order, each once."""
    return list(dict.fromkeys(_cells()))


def _cells() -> Iterator[Cell]:
    pairs = (*FULL, *OTHERS)
    yield from _block(pairs, ["baselines"], [2_000])  # 10,000 queries learn from the same images
    for task, source, views, queries in GOALS:
        yield from _block([(task, source)], ["auto-scores"], [queries], views)
    few, many = BUDGETS
    yield from _block(pairs, ["bar"], [few], 1)
    yield from _block(pairs, ["auto-scores"], [few, TENTH])
    yield from _block(SOME_IMAGES, ["baselines"], [TENTH])
    yield from _block(CONNECTOMES, ["baselines"], [few], seeds=FOLDS)
    yield from _block(CONNECTOMES, ["bar"], [few], 1, FOLDS)
    yield from _block(CONNECTOMES, ["auto-scores"], [few], seeds=FOLDS)
    yield from _block(pairs, ["bar"], [many], 1)
    yield from _block(pairs, ["auto-scores"], [many])
    yield from _block(CONNECTOMES, ["bar"], [many], 1, FOLDS)
    yield from _block(CONNECTOMES, ["auto-scores"], [many], seeds=FOLDS)
    yield from _block([ABLATED], ABLATIONS, BUDGETS[1:], 1)
    for queries in BUDGETS:
        yield from _block(FULL, ["race", "views"], [queries])
        yield from _block(FULL, ["bar-paper", *DESCENTS], [queries], 1)
    yield from _block(pairs, ["baselines"], [LEAST])
    yield from _block(pairs, ["auto-scores"], [LEAST])
    yield from _block(pairs, ["bar"], [LEAST], 1)
    yield from _block(FULL, ["race", "views"], [LEAST])
    yield from _block(FULL, DESCENTS, [LEAST], 1)
    yield from _block(pairs, ["auto"], (*BUDGETS, TENTH, LEAST))
    yield from _block(CONNECTOMES, ["auto"], BUDGETS, seeds=FOLDS)
    yield from _block([("digits", "img1000@224")], ["auto-scores"], [2_000], 2)
    yield from _block([("digits", "mod5@224")], ["auto-scores"], [10_000], 8)
    yield from _block(FULL[:1], ["auto-scores"], [MOST], 8)
    yield from _block(FULL[:1], ["bar"], [MOST], 1)


def _block(
    pairs: Sequence[tuple[str, str]],
    methods: Sequence[str],
    budgets: Sequence[int],
    views: int = VIEWS,
    seeds: Sequence[int] = SEEDS,
) -> Iterator[Cell]:
    """Every combination; all pairs and methods of a seed come before the next seed."""
    for queries, seed, method, (task, source) in product(budgets, seeds, methods, pairs):
        yield Cell(task, source, method, views, queries, seed)


def finished() -> dict[str, dict[str, Any]]:
    """The line of each finished cell, by name."""
    if not FINISHED.exists():
        return {}
    lines = (json.loads(line) for line in FINISHED.read_text().splitlines() if line.endswith("}"))
    return {line["cell"]: line for line in lines}


def work(wanted: Sequence[Cell], processes: int = PROCESSES, again: bool = False) -> None:
    """Run the cells that are not finished (`again`: all), and note each as it ends. Interrupted, it loses
    those under way."""
    done, began = {} if again else finished(), time.monotonic()
    todo = [cell for cell in wanted if cell.name not in done]
    print(f"{len(wanted) - len(todo)} cells are finished, {len(todo)} to run", flush=True)
    commit = _commit()
    CACHE.mkdir(exist_ok=True)
    with (
        ProcessPoolExecutor(processes, get_context("spawn"), _die_with, (os.getpid(),)) as pool,
        FINISHED.open("a") as out,
    ):
        under_way = {pool.submit(_tried, cell): cell for cell in todo}
        for number, future in enumerate(as_completed(under_way), 1):
            if (error := future.exception()) is not None:  # the next run tries it again
                print(f"{number}/{len(todo)} {under_way[future].name} failed: {error!r}", flush=True)
                continue
            line = {**future.result(), "commit": commit}
            out.write(json.dumps(line) + "\n")
            out.flush()
            said = line.get("missing") or line.get("refused") or line.get("accuracy", "")
            minutes = (time.monotonic() - began) / 60
            print(f"{number}/{len(todo)} {minutes:.1f} min  {line['cell']}  {said}", flush=True)


def _die_with(parent: int) -> None:
    """Worker processes do not outlive the one that gives them work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tried(cell: Cell) -> dict[str, Any]:
    """The cell's line; what cannot be run says why."""
    try:
        return run(cell)
    except MissingData as error:
        return {"cell": cell.name, **vars(cell), "missing": str(error)}
    except BadRequest as error:
        return {"cell": cell.name, **vars(cell), "refused": f"{error.code}: {error.detail}"}


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return said.stdout.strip()
