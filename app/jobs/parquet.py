"""Parquet uploads: Hugging Face's image tables (bytes beside a label), and tables of features.

pyarrow is the extra `parquet`. Row groups are read in small batches; a column of Python objects does not
exist in the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from app.errors import BadRequest, TooLarge
from app.jobs.archive import MIB, Inflated, IngestLimits, Member
from app.jobs.labels import SPLIT_NAMES, Row, tidy
from app.jobs.records import LABELS, Sheet

BATCH = 64  # rows in memory at once
IMAGES = ("image", "img", "png", "jpg")
LARGEST_COLUMN_CHUNK = 512 * MIB  # inflated: pyarrow holds a page of it, and never more than one row group


@dataclass(frozen=True)
class Layout:
    """Columns by role. `names` are the classes that integer labels number, where the file says them."""

    columns: tuple[str, ...]
    image: str | None
    label: str | None
    split: str | None
    group: str | None
    names: tuple[str, ...]


class Parquet:
    """One open file. Raises BadRequest `unreadable_archive`, `extra_missing`, TooLarge `archive_bomb`."""

    def __init__(self, source: Path, limits: IngestLimits) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise BadRequest(
                "This service cannot read parquet: pyarrow is not installed.",
                code="extra_missing",
                hint="Install the extra: pip install 'reprog[parquet]'; or send a zip or a CSV.",
            ) from error
        try:
            self._file: Any = parquet.ParquetFile(source)
        except (OSError, ValueError) as error:
            raise _unreadable(error) from error
        if self._file.metadata.num_rows > limits.files:
            raise TooLarge(f"The file holds more than {limits.files} rows.", code="archive_bomb")
        self._refuse_giants()
        self._inflated = Inflated(source.stat().st_size, limits)
        self._limits = limits

    def layout(self, label_column: str | None) -> Layout:
        """Raises BadRequest `label_column_missing`."""
        schema = self._file.schema_arrow
        columns = tuple(str(name) for name in schema.names)
        lower = {name.lower(): name for name in columns}
        if label_column is not None and label_column not in columns:
            raise _no_label(f"There is no column {label_column!r}.", columns)
        label = label_column or next((lower[name] for name in LABELS if name in lower), None)
        image = next(
            (lower[n] for n in IMAGES if n in lower and _holds_bytes(schema.field(lower[n]).type)), None
        )
        if image is not None and label is None:
            raise _no_label("There is an image column and no label column.", columns)
        names = _class_names(schema.metadata or {}, label)
        return Layout(columns, image, label, lower.get("split"), lower.get("group"), names)

    def pictures(self, layout: Layout) -> Iterator[tuple[Member, Row | None, str]]:
        """(encoded image, what is said of it, why not). Paths are the file's own where it has any."""
        wanted = [c for c in (layout.image, layout.label, layout.split, layout.group) if c is not None]
        seen: set[str] = set()
        for n, row in self._rows(wanted):
            cell = row[layout.image or ""]
            data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
            name = tidy(str(path)) if path and str(path) not in seen else f"row {n}"
            seen.add(name)
            if not isinstance(data, bytes):
                yield Member(name, code="no_bytes", reason="The row holds no image bytes."), None, ""
                continue
            self._inflated.count(len(data))
            said, why = _said(row, layout)
            yield Member(name, data), said, why

    def sheet(self, layout: Layout) -> Sheet:
        """The rows as texts, for `records.read`; a single column of lists is spread."""
        flat = [c for c in layout.columns if c not in (layout.label, layout.split, layout.group)]
        lists = len(flat) == 1 and str(self._file.schema_arrow.field(flat[0]).type).startswith(
            ("list", "large_list", "fixed_size_list")
        )
        if lists:
            rows = (
                (n, [_text(row[layout.label or ""]), *(_text(x) for x in row[flat[0]] or ())])
                for n, row in self._rows(list(layout.columns))
            )
            return Sheet("", None, rows, "series")
        rows = (
            (n, [self._cell(row, name, layout) for name in layout.columns])
            for n, row in self._rows(list(layout.columns))
        )
        return Sheet("", layout.columns, rows)

    @staticmethod
    def _cell(row: Mapping[str, Any], name: str, layout: Layout) -> str:
        return _label(row[name], layout.names) if name == layout.label else _text(row[name])

    def _rows(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        n = 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH, columns=list(columns)):
                for row in batch.to_pylist():
                    yield n, row
                    n += 1
        except (OSError, ValueError, NotImplementedError) as error:
            raise _unreadable(error) from error

    def _refuse_giants(self) -> None:
        meta = self._file.metadata
        for group in range(meta.num_row_groups):
            if meta.row_group(group).total_byte_size > LARGEST_COLUMN_CHUNK:
                raise TooLarge(
                    f"A row group inflates to more than {LARGEST_COLUMN_CHUNK // MIB} MiB.",
                    code="archive_bomb",
                    hint="Write it with smaller row groups, for example row_group_size=1000.",
                )


def _said(row: Mapping[str, Any], layout: Layout) -> tuple[Row | None, str]:
    label = _label(row[layout.label or ""], layout.names)
    split = _text(row[layout.split]).lower() if layout.split else ""
    if not label:
        return None, "Its label is empty."
    if split and split not in SPLIT_NAMES:
        return None, f"Split {split[:40]!r} is none of train, val and test."
    group = tidy(_text(row[layout.group])) if layout.group else ""
    return Row(label, SPLIT_NAMES[split] if split else None, group or None), ""


def _label(value: object, names: tuple[str, ...]) -> str:
    if isinstance(value, int) and 0 <= value < len(names):
        return tidy(names[value])
    return tidy(_text(value))


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _holds_bytes(kind: object) -> bool:
    text = str(kind)
    return text in ("binary", "large_binary") or (text.startswith("struct<") and "bytes: binary" in text)


def _class_names(metadata: Mapping[bytes, bytes], label: str | None) -> tuple[str, ...]:
    """ClassLabel names of the schema's `huggingface` metadata; () without."""
    try:
        features = orjson.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in cast("list[object]", features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _no_label(detail: str, columns: Sequence[str]) -> BadRequest:
    return BadRequest(
        detail,
        code="label_column_missing",
        param="label_column",
        hint=f"The columns are {', '.join(columns[:12])}; say which is the label: ?label_column=NAME.",
    )


def _unreadable(error: Exception) -> BadRequest:
    return BadRequest(
        f"The parquet file cannot be read: {str(error)[:200]}.",
        code="unreadable_archive",
        hint="It may be damaged or cut short: make it again, or send it again.",
    )
