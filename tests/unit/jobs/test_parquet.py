"""Parquet: Hugging Face's image tables, tables of features, lists of values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from unit.jobs.uploads import png

from app.errors import BadRequest, ReprogError
from app.jobs import dataset
from app.jobs.dataset import ingest


def write(path: Path, columns: dict[str, Any], metadata: dict[str, Any] | None = None) -> Path:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    parquet.write_table(table, path)
    return path


def test_images_with_class_names_of_the_schema(tmp_path: Path) -> None:
    images = [{"bytes": png(i), "path": f"{i}.png"} for i in range(20)]
    images[3] = {"bytes": b"no image", "path": "3.png"}
    images[4] = {"bytes": None, "path": "4.png"}
    classes = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {
        "image": images,
        "label": [i % 2 for i in range(20)],
        "group": [f"g{i // 2}" for i in range(20)],
    }
    found = ingest(write(tmp_path / "a.parquet", columns, classes), "auto", tmp_path / "ds", 0)
    assert found.classes == ("cat", "dog")
    assert (found.items, found.report["rejected_total"]) == (18, 2)
    assert {entry["file"]: entry["code"] for entry in found.report["rejected"]} == {
        "3.png": "image_unreadable",
        "4.png": "no_bytes",
    }
    assert "cat, dog" in found.report["how_labels_were_read"]
    data = dataset.load(tmp_path / "ds", max_side=64)
    assert data.encoder is None
    assert data.groups is not None


def test_rows_of_features_and_lists_of_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {"size": rng.normal(size=40), "kind": ["a", None] * 20, "target": ["x", "y"] * 20}
    found = ingest(write(tmp_path / "rows.parquet", rows), "auto", tmp_path / "rows", 0)
    assert found.report["records"] == {"kind": "table", "columns": ["size", "kind"]}
    lists = {"values": [rng.normal(size=12).tolist() for _ in range(40)], "label": [0, 1] * 20}
    found = ingest(write(tmp_path / "lists.parquet", lists), "auto", tmp_path / "lists", 0)
    assert found.report["records"]["kind"] == "series"
    assert dataset.load(tmp_path / "lists", max_side=224).encoder is not None


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"image": [b"x"], "name": ["a"]}, "label_column_missing"),
        ({"size": [1.0], "name": ["a"]}, "label_column_missing"),
    ],
)
def test_no_label_is_a_sentence(tmp_path: Path, columns: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ingest(write(tmp_path / "a.parquet", columns), "auto", tmp_path / "ds", 0)
    assert refused.value.code == code
    assert refused.value.hint


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"label": ["a"] * 100, "size": list(range(100))})
    for broken in (path.read_bytes()[:-9], b"PAR1" + b"\0" * 300 + b"PAR1"):
        path.write_bytes(broken)
        with pytest.raises(ReprogError) as refused:
            ingest(path, "auto", tmp_path / "ds", 0)
        assert refused.value.code == "unreadable_archive"
