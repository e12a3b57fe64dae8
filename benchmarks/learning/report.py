"""The section of RESULTS.md on learning, and learning.json with every finished cell behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, save, table
from benchmarks.learning import grid, page, plots
from benchmarks.learning.cell import VARIANTS
from benchmarks.learning.figures import RIVALS, Figure, Line, figures
from benchmarks.learning.sources import CACHE, SOURCES

FILE = RESULTS / "learning.json"
EXTRAS = (
    "maths",
    "http",
    "answers",
    "estimator",
    "whitebox",
)  # measured apart from the grid, each in a file of its own
MATHS_GOAL = 0.3  # ms of CPU per query
LARGE = ("abide", "ham7", "melanoma")  # tasks whose images have 150 x 200 pixels or more
COMMAND = "python -m benchmarks learning"
TASKS = {
    "digits": "scanned digits, 10 classes (UCI, CC BY 4.0), learned and tested on two halves of the data",
    "squares": "1 to 10 white squares (Elsayed et al. 2019), stratified",
    "melanoma": "melanoma or nevus (HAM10000, Tschandl et al. 2018, CC BY-NC 4.0), by lesion",
    "ham7": "7 skin lesions (HAM10000, Tschandl et al. 2018, CC BY-NC 4.0), at most 240 a class, by lesion",
    "abide": "autism or control, correlations of 200 regions (ABIDE I, 1000 Functional Connectomes), 10-fold",
    "messidor": "retinopathy, 19 features (Messidor features, UCI, CC BY 4.0), a tile each, stratified",
    "ecg200": "normal heartbeat or ischaemia, series as pictures (ECG200, UCR archive), the published split",
}
PREAMBLE = """
A *cell* learns one task through one source model by one method under one seed, then looks at its test images
once. Queries are those of learning, the probe pass included; the test images come on top. An image is paid
for once, as over HTTP. Dollars are the list price of the service that the source model plays. Accuracy is
the mean over seeds; the 95 % interval adds the variance over one seed's test images to the scatter of the
seeds (folds of ABIDE: over all images). Methods run with their defaults; nothing was tuned here. Where half
the queries are fewer than the learning images, as many images are learned from. *Own* is what a descending
method's best prompt scores by itself: the method serves the plain picture with the best head when the prompt
is not better. Differences are paired, image by image. Where a row has other images (few queries), its
differences are to the baselines on those images.
"""


def write() -> None:
    """Write learning.json, pictures and section, from what is finished here and what was committed."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {"lines": []}
    lines = {line["cell"]: line for line in known["lines"]} | grid.finished()
    order = {cell.name: i for i, cell in enumerate(grid.cells())}
    kept = sorted(
        (line for line in lines.values() if line["cell"] in order), key=lambda at: order[at["cell"]]
    )
    extras = {name: found for name in EXTRAS if (found := extra(name) or known.get(name)) is not None}
    rows = figures(kept)
    by_key = {row.key: asdict(row) for row in rows}
    FILE.write_text(_json({**extras, "figures": by_key, "lines": kept}))
    page.update(by_key)
    plots.curves(rows)
    text = "\n\n".join(part.strip() for part in _parts(rows, kept, extras, order))
    save("learning", "Learning per query", COMMAND, text)


def _json(document: dict[str, Any]) -> str:
    """One line per figure and per cell, so that a change shows as one."""
    parts: list[str] = []
    for name, value in document.items():
        if isinstance(value, list):
            inner = ",\n".join(json.dumps(line) for line in value)
            parts.append(f"{json.dumps(name)}: [\n{inner}\n]")
        else:
            inner = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            parts.append(f"{json.dumps(name)}: {{\n{inner}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def extra(name: str) -> dict[str, Any] | None:
    """What was measured apart from the grid on this machine, or None."""
    path = CACHE / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def keep_extra(name: str, document: Mapping[str, Any]) -> None:
    """Note what was measured apart from the grid."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / f"{name}.json").write_text(json.dumps(document))


def _parts(
    rows: Sequence[Figure], lines: Sequence[Line], extras: Mapping[str, Any], order: Mapping[str, int]
) -> Iterator[str]:
    yield PREAMBLE
    yield "### Goals\n\n" + _goals(rows)
    yield "### Never below the head\n\n" + _never_below(rows)
    yield "### BAR's best with a tenth of its queries\n\n" + _tenth(rows)
    for (task, source), group in groupby(
        sorted(rows, key=lambda row: (list(TASKS).index(row.task), row.source)),
        key=lambda row: (row.task, row.source),
    ):
        yield f"### {task} through {source}\n\n" + _pair(task, source, list(group))
    yield "### The paper's ablations\n\n" + _ablations(rows)
    if "estimator" in extras:
        yield "### Estimated gradients beside true ones\n\n" + extras["estimator"]["sentence"]
    if "whitebox" in extras:
        yield "### With the source model's gradients\n\n" + _whitebox(extras["whitebox"])
    if "answers" in extras:
        yield "### The answers, before and after\n\n" + extras["answers"]["sentence"]
    if "http" in extras:
        yield "### The same over HTTP\n\n" + extras["http"]["sentence"]
    yield "### Cost of the maths\n\n" + _maths(lines, extras.get("maths"))
    yield "### Left out, refused, not run\n\n" + _gaps(lines, order)


def shown(value: float) -> str:
    return f"{value:.3f}"


def _with_limits(row: Figure) -> str:
    return f"{shown(row.accuracy)} [{shown(row.low)}, {shown(row.high)}]"


def _gain(gain: tuple[float, float, float] | None) -> str:
    return "" if gain is None else f"{gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]"


def _find(rows: Sequence[Figure], **of: object) -> Figure | None:
    return next((row for row in rows if all(getattr(row, k) == v for k, v in of.items())), None)


def _goals(rows: Sequence[Figure]) -> str:
    out: list[list[object]] = []
    for (task, source, views, queries), goal in grid.GOALS.items():
        row = _find(rows, task=task, source=source, method="auto-scores", views=views, queries=queries)
        if row is None:
            out.append([task, source, f"{queries:,}", views, goal, "", "", "not run"])
            continue
        missed = goal - row.accuracy
        said = "met" if missed <= 0 else f"missed by {missed:.3f}"
        if row.seeds < len(grid.SEEDS):
            said += f", {row.seeds} of {len(grid.SEEDS)} seeds"
        out.append([task, source, f"{queries:,}", views, goal, _with_limits(row), row.seeds, said])
    head = ["task", "source", "queries", "per prediction", "goal", "`auto-scores`, mean [95 %]", "seeds", ""]
    said = "`auto-scores` is `auto` without pixel features: the goals are for the scores alone."
    return f"{said}\n\n{table(head, out)}"


def _never_below(rows: Sequence[Figure]) -> str:
    autos = [row for row in rows if row.method in ("auto", "auto-scores") and row.over_head is not None]
    if not autos:
        return "No cell of `auto` has been run."
    below = [row for row in autos if row.over_head and row.over_head[2] < 0]
    worst = min(autos, key=lambda row: row.over_head[0] if row.over_head else 0.0)
    named = "; ".join(f"{row.key}: {_gain(row.over_head)}" for row in below) or "none"
    return (
        f"`auto` against the linear head on the same images, {len(autos)} rows. Below it by more than the "
        f"interval explains: {named}. The lowest: {worst.key}, {_gain(worst.over_head)}."
    )


def _tenth(rows: Sequence[Figure]) -> str:
    out: list[list[object]] = []
    for task, source in (*grid.FULL, *grid.OTHERS, *grid.CONNECTOMES):
        pair = {"task": task, "source": source}
        of_bar = [row for row in rows if row.method == "bar" and (row.task, row.source) == (task, source)]
        mine = [
            _find(rows, **pair, method="auto-scores", views=grid.VIEWS, queries=n)
            for n in (grid.TENTH, 2_000)
        ]
        if not of_bar or not any(mine):
            continue
        best = max(of_bar, key=lambda row: row.accuracy)
        said = [_with_limits(row) if row else "not run" for row in mine]
        short = None if mine[0] is None else best.accuracy - mine[0].accuracy
        reached = "not run" if short is None else "yes" if short <= 0 else f"no, by {short:.3f}"
        out.append([task, source, f"{_with_limits(best)} at {best.queries:,}", *said, reached])
    head = [
        "task",
        "source",
        "`bar`, best",
        f"`auto` at {grid.TENTH:,}",
        "`auto` at 2,000",
        "reached with a tenth",
    ]
    return table(head, out) if out else "Not run."


def _pair(task: str, source: str, rows: Sequence[Figure]) -> str:
    model = SOURCES[source]
    classifier = f"`{model.classifier}`, {model.size} pixels, {model.micros / 1000:.2f} USD per 1,000"
    head = [
        "method", "queries", "paid", "USD", "per prediction", "train/val/test", "seeds", "accuracy [95 %]",
        "own", "over the linear head", "over raw pixels",
    ]  # fmt: skip
    ranked = sorted(rows, key=lambda row: (row.queries, row.method not in RIVALS, -row.accuracy))
    lines = [
        [
            RIVALS.get(row.method, f"`{row.method}`"),
            f"{row.queries:,}" if row.method not in RIVALS else "",
            f"{row.paid:,}",
            f"{row.usd:.2f}",
            f"{row.asks:.1f}".removesuffix(".0"),
            "/".join(map(str, row.images)),
            row.seeds,
            _with_limits(row),
            "" if row.own is None else shown(row.own),
            _gain(row.over_head),
            _gain(row.over_pixels),
        ]
        for row in ranked
        if row.method not in grid.ABLATIONS
    ]
    plot = f"\n\n![Accuracy against dollars](results/learning-{task}-{source}.png)"
    there = (RESULTS / f"learning-{task}-{source}.png").exists()
    return f"{TASKS[task]}. Source model: {classifier}.\n\n{table(head, lines)}{plot if there else ''}"


def _ablations(rows: Sequence[Figure]) -> str:
    task, source = grid.ABLATED
    wanted = [("bar", "q = 5, frequency m = 10, focal"), *((name, name) for name in grid.ABLATIONS)]
    out: list[list[object]] = []
    for name, title in wanted:
        row = _find(rows, task=task, source=source, method=name, queries=10_000)
        if row is not None:
            own = "" if row.own is None else shown(row.own)
            out.append([title, row.seeds, f"{row.paid:,}", own, _with_limits(row)])
    if not out:
        return "Not run."
    head = ["`bar` with", "seeds", "paid", "own accuracy of the prompt", "served accuracy [95 %]"]
    return f"{task} through {source}, 10,000 queries; what is not named is the default.\n\n{table(head, out)}"


def _whitebox(found: Mapping[str, Any]) -> str:
    head = [
        "program and mapping",
        "seeds",
        "passes over the images",
        "test accuracy",
        "linear head, prompt as at the start",
    ]
    rows = [
        [row["name"], row["seeds"], row["passes"], shown(row["accuracy"]), shown(row["head"])]
        for row in found["rows"]
    ]
    return f"{found['sentence']}\n\n{table(head, rows)}"


def _maths(lines: Sequence[Line], refit: Mapping[str, Any] | None) -> str:
    long = [line for line in lines if line.get("paid", 0) >= 5_000 and "@" not in line["source"]]
    alike: dict[tuple[str, str], list[Line]] = {}
    for line in long:
        images = "150 x 200 and more" if line["task"] in LARGE else "up to 96 x 96"
        alike.setdefault((line["method"], images), []).append(line)
    out: list[list[object]] = []
    for (method, images), mine in sorted(alike.items()):
        paid = sum(line["paid"] for line in mine)
        learn, draw = (1000 * sum(line["cpu"][part] for line in mine) / paid for part in ("learn", "render"))
        over = learn + draw - MATHS_GOAL
        said = "met" if over <= 0 else f"missed by {over:.2f}"
        spent = (f"{ms:.2f}" for ms in (learn, draw, learn + draw))
        out.append([f"`{method}`", images, len(mine), *spent, said])
    head = ["method", "images", "cells", "learning, ms", "rendering, ms", "both", f"goal {MATHS_GOAL}"]
    text = table(head, out) if out else "No cell of 5,000 queries or more has been run."
    if refit is not None:
        text += f"\n\n{refit['sentence']}"
    return "CPU per query beside the model's, cells of 5,000 queries or more at 128 pixels.\n\n" + text


def _gaps(lines: Sequence[Line], order: Mapping[str, int]) -> str:
    done = {line["cell"] for line in lines}
    missing = {line["task"]: line["missing"] for line in lines if "missing" in line}
    refused = {
        f"`{line['method']}` on {line['task']}/{line['source']}": line["refused"]
        for line in lines
        if "refused" in line
    }
    out = [f"**Left out, data missing**: {task}: {why}." for task, why in missing.items()]
    out += [f"Refused: {what}: {why}" for what, why in refused.items()]
    if left := len(order) - len(done):
        said = f"**Not run**: {left} of {len(order)} cells. `{COMMAND}` runs them and leaves the others."
        out.append(f"{said} Cells done of those planned, by queries:\n\n{_done(done)}")
    commits = sorted({line.get("commit", "") for line in lines} - {""})
    cpu = sum(np.sum(list(line.get("cpu", {}).values())) for line in lines) / 3600
    out.append(f"{len(done)} cells, {cpu:.1f} hours of CPU; code of commits {', '.join(commits)}.")
    out.append(
        "Names of variants: " + "; ".join(f"`{k}` is `{t}` with {o}" for k, (t, o) in VARIANTS.items()) + "."
    )
    return "\n\n".join(out)


def _done(done: set[str]) -> str:
    """Method by budget: finished and planned cells."""
    planned = grid.cells()
    budgets = sorted({cell.queries for cell in planned})
    rows: list[list[str]] = []
    for method in dict.fromkeys(cell.method for cell in planned):
        row = [f"`{method}`"]
        for budget in budgets:
            mine = [cell.name in done for cell in planned if (cell.method, cell.queries) == (method, budget)]
            row.append(f"{sum(mine)} of {len(mine)}" if mine else "")
        rows.append(row)
    return table(["method", *(f"{budget:,}" for budget in budgets)], rows)
