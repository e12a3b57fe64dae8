"""The learning benchmark counts, parts and averages as its report says; its page has committed figures."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning import grid, page, sources, tasks
from benchmarks.learning.cell import Cell, packed, run, unpacked
from benchmarks.learning.figures import figures, interval

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "learning.json"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CACHE", tmp_path)
    monkeypatch.setattr(grid, "FINISHED", tmp_path / "cells.jsonl")
    sources._answers.cache_clear()


@pytest.mark.parametrize("task", ["digits", "squares"])
def test_no_test_image_is_learned_from(task: str) -> None:
    for seed in grid.SEEDS:
        rows = tasks.load(task).rows(seed, 10_000)
        parts = [set(part.tolist()) for part in rows.values()]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_a_cell_pays_for_each_image_once_and_runs_the_same_from_the_cache() -> None:
    cell = Cell("digits", "signs43", "baseline", 1, 100, 0)
    first, again = run(cell), run(cell)
    assert first["paid"] == first["images"]["train"] + first["images"]["val"] <= 100
    assert first["cpu"]["model"] > again["cpu"]["model"] == 0
    assert (first["right"], first["paid"]) == (again["right"], again["paid"])
    assert unpacked(first["right"], first["images"]["test"]).mean() == pytest.approx(first["accuracy"])


def test_answers_are_those_of_the_sandbox_under_sorted_labels() -> None:
    source = sources.Source("mod5")
    images = np.random.default_rng(0).integers(0, 256, (3, source.side, source.side, 3), np.uint8)
    order = np.argsort(source.classifier.labels)
    assert source.labels == tuple(sorted(source.classifier.labels))
    for _ in range(2):  # computed, then read back
        sent = source.classifier.scores(images)[:, order]
        np.testing.assert_array_equal(source(images), sent.astype(np.float32))
        source = sources.Source("mod5")


def test_a_task_without_its_data_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tasks.BENCH_DATA, raising=False)
    line = grid._tried(Cell("ecg200", "mod5", "baseline", 1, 500, 0))
    assert tasks.BENCH_DATA in line["missing"]


def test_what_a_method_refuses_is_a_line_of_its_own() -> None:
    line = grid._tried(Cell("digits", "mod5", "bar-paper", 1, 500, 0))
    assert line["refused"].startswith("mapping_too_wide")


def test_interval_counts_shared_images_once() -> None:
    right = np.array([1.0, 0.0] * 50)
    mean, low, high = interval([right, right], apart=False)
    assert (mean, high - mean) == (0.5, pytest.approx(1.96 * 0.05, rel=1e-3))
    assert mean - low == pytest.approx(high - mean)
    narrow = interval([right, right], apart=True)
    assert narrow[2] - narrow[1] == pytest.approx((high - low) / np.sqrt(2))


def test_gains_are_paired_with_baselines_of_the_same_images() -> None:
    at = {"task": "digits", "source": "mod5", "views": 4, "queries": 500, "seed": 0}
    images = {"train": 2, "val": 1, "test": 4}
    head = {"accuracy": 0.25, "paid": 3, "micros": 3600, "right": packed(np.array([1, 0, 0, 0], bool))}
    rivals = {
        **at,
        "method": "baselines",
        "images": images,
        "rivals": {"linear_head": head, "raw_pixels": head},
    }
    mine = {
        **at, "method": "auto", "images": images, "accuracy": 0.75, "paid": 3, "micros": 3600, "asks": 1,
        "right": packed(np.array([1, 1, 1, 0], bool)),
    }  # fmt: skip
    rows = {row.method: row for row in figures([rivals, mine])}
    assert rows["auto"].over_head is not None
    assert rows["auto"].over_head[0] == 0.5
    assert rows["linear_head"].accuracy == 0.25
    other = {**mine, "images": {**images, "train": 20}}
    assert figures([rivals, other])[-1].over_head is None


def test_committed_figures_follow_from_the_committed_cells() -> None:
    known = json.loads(RESULTS.read_text())
    assert (
        json.loads(json.dumps({row.key: asdict(row) for row in figures(known["lines"])})) == known["figures"]
    )


def test_the_page_has_the_committed_figures() -> None:
    text, known = page.PAGE.read_text(), json.loads(RESULTS.read_text())["figures"]
    assert page.FIGURE.search(text)
    assert page.written(text, known) == text
    assert page.BARE.findall(text) == []
