"""Pictures of the results: accuracy against dollars per pair, and the answers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.reprogramming.program import feature_columns
from app.reprogramming.scores import log_scores
from app.reprogramming.transform import View
from benchmarks.common import RESULTS
from benchmarks.learning.cell import Cell, asked, learn, problem_of
from benchmarks.learning.figures import RIVALS, Figure
from benchmarks.learning.sources import Source

WIDE, HIGH, DOTS = 7.5, 4.0, 80  # inches, inches, dots per inch
TICKS = (0.5, 1, 2, 5, 10, 20, 50)  # USD
NO_MATPLOTLIB = "matplotlib is not installed (pip install 'reprog[bench]'): no pictures are drawn"


def _pyplot() -> Any:  # noqa: ANN401 (an optional package)
    try:
        import matplotlib
    except ImportError:
        print(NO_MATPLOTLIB)
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def curves(rows: Sequence[Figure]) -> None:
    """learning-TASK-SOURCE.png for every pair with at least two budgets of some method."""
    plot = _pyplot()
    if plot is None:
        return
    by_pair = sorted(rows, key=lambda row: (row.task, row.source))
    for (task, source), group in groupby(by_pair, key=lambda row: (row.task, row.source)):
        pair = list(group)
        if len({row.queries for row in pair if row.method not in RIVALS}) < 2:
            continue
        figure, axes = plot.subplots(figsize=(WIDE, HIGH))
        axes.set_prop_cycle(color=plot.get_cmap("tab20").colors)
        _draw(axes, pair)
        axes.set(
            xscale="log", xlabel="USD for learning", ylabel="test accuracy", title=f"{task} through {source}"
        )
        axes.set_xticks(TICKS, [f"{usd:g}" for usd in TICKS])
        axes.minorticks_off()
        axes.set_xlim(0.5, max(20.0, 1.2 * max(row.usd for row in pair)))
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
        figure.tight_layout()
        figure.savefig(RESULTS / f"learning-{task}-{source}.png", dpi=DOTS, metadata={"Software": None})
        plot.close(figure)


def _draw(axes: Any, pair: Sequence[Figure]) -> None:  # noqa: ANN401
    methods = sorted(
        (row for row in pair if row.method not in RIVALS and " " not in row.method),
        key=lambda row: (row.method, row.views, row.usd),
    )
    for (method, views), group in groupby(methods, key=lambda row: (row.method, row.views)):
        series = list(group)
        label = method if views == 1 else f"{method}, {views} a prediction"
        spread = [[row.accuracy - row.low for row in series], [row.high - row.accuracy for row in series]]
        x, y = [row.usd for row in series], [row.accuracy for row in series]
        axes.errorbar(x, y, yerr=spread, marker="o", markersize=3, capsize=2, linewidth=1, label=label)
    best = max((row.queries for row in pair if row.method in RIVALS), default=0)
    styles = ("-", "--", "-.", ":", (0, (1, 4)))
    flat = [row for row in pair if row.method in RIVALS and row.queries == best]
    for row, style in zip(flat, styles, strict=False):
        axes.axhline(row.accuracy, color="grey", linewidth=0.8, linestyle=style, label=RIVALS[row.method])


def before_and_after() -> dict[str, Any]:
    """Draw the source model's answers to learning images, as they are and under the finished program."""
    cell = Cell("digits", "mod5", "auto-scores", 8, 10_000, 0)
    source = Source(cell.source)
    problem, _, _ = problem_of(cell, source)
    program, _, _ = learn(cell, problem, source)
    images, labels = (np.concatenate([of["train"], of["val"]]) for of in (problem.images, problem.labels))
    before = asked(source, (View(size=source.side),), images)
    after = asked(source, program.views, images)
    columns = [feature_columns(log_scores(s, problem.floor, "probability")) for s in (before, after)]
    name = _scatter(columns[0], columns[1], labels, f"{len(program.views)} programs")
    sentence = (
        f"Log-scores of {len(labels)} learning images of {cell.task} through {cell.source}, by class, "
        f"in two dimensions by t-SNE: the plain picture's {len(source.labels)} scores, and the "
        f"{len(program.views)} programs' of `{cell.name}`.\n\n![Answers before and after](results/{name})"
    )
    return {"sentence": sentence}


def _scatter(
    before: NDArray[np.float64], after: NDArray[np.float64], labels: NDArray[np.intp], title: str
) -> str:
    """t-SNE (van der Maaten and Hinton 2008) of (n, F) columns side by side; the file's name."""
    from sklearn.manifold import TSNE

    plot, name = _pyplot(), "learning-answers.png"
    if plot is None:
        raise ImportError(NO_MATPLOTLIB)
    figure, both = plot.subplots(1, 2, figsize=(2 * HIGH, HIGH))
    for axes, values, said in zip(both, (before, after), ("plain picture", title), strict=True):
        scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
        flat = TSNE(2, random_state=0, init="pca").fit_transform(scaled)
        axes.scatter(flat[:, 0], flat[:, 1], c=labels, cmap="tab10", s=6)
        axes.set(title=said, xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(RESULTS / name, dpi=DOTS, metadata={"Software": None})
    plot.close(figure)
    return name
