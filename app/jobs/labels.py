"""How the labels of an upload are read: from a table in it, or from its folders."""

from __future__ import annotations

import csv
import io
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import orjson

from app.contracts import Split
from app.errors import BadRequest

Reader = Literal["auto", "folders", "imagefolder", "csv"]
READERS: dict[str, Reader] = {name: name for name in get_args(Reader)}

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
PATH_COLUMNS = ("path", "file_name", "filename", "file", "image")
SHOWN = 5  # examples in a sentence


@dataclass(frozen=True)
class Row:
    """What is said of one image."""

    label: str
    split: Split | None = None
    group: str | None = None


@dataclass
class Reading:
    """Rows by archive path; `rejected` are the files nothing usable is said of: path -> (code, reason)."""

    how: str
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    rejected: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    warnings: list[str] = field(default_factory=list[str])
    tables: list[str] = field(default_factory=list[str])  # files read as label tables


def tidy(text: str) -> str:
    """A label as it is stored: NFC, no blanks at its ends, storable as JSON."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode()).strip()


def is_table(path: str) -> bool:
    """Whether the file may hold labels."""
    return path.lower().endswith((".csv", ".jsonl"))


def read(
    images: Sequence[str],
    tables: Mapping[str, bytes],
    reader: Reader,
    refused: Collection[str] = (),
    label_column: str | None = None,
) -> Reading:
    """Labels, splits and groups of `images` (paths in the archive); `refused` were sent but are no images.
    `label_column` is the label of tables that do not call it `label`.

    Raises BadRequest `ambiguous_labels` when sources disagree, `label_table_missing`, `unreadable_table`.
    """
    column = (label_column or "label").strip().lower()
    parsed = (
        [] if reader == "folders" else [_parse(path, data, column) for path, data in sorted(tables.items())]
    )
    usable = [table for table in parsed if table.columns and _wanted(table, reader)]
    if usable:
        reading = _from_tables(images, usable, set(refused), trust=reader != "auto")
    elif reader in ("csv", "imagefolder"):
        wanted = "metadata.csv or metadata.jsonl" if reader == "imagefolder" else "CSV"
        raise BadRequest(
            f"No {wanted} with a path column and a label column was found.",
            code="label_table_missing",
            param="format",
            hint=_columns_hint(parsed),
        )
    else:
        reading = _from_folders(images)
    headers = {table.path: ", ".join(table.header[:8]) for table in parsed}
    for path in tables.keys() - set(reading.tables):
        columns = f"its columns are {headers[path]}" if path in headers else "the folders were asked for"
        reading.rejected[path] = ("not_an_image", f"Not read as a label table: {columns}.")
    if parsed and not usable:
        reading.warnings.append(_columns_hint(parsed))
    return reading


# ---------------------------------------------------------------- folders


def _from_folders(images: Sequence[str]) -> Reading:
    parts = _unwrapped(images)
    splits = _split_level(parts.values(), below=2)
    level = 1 if splits else 0
    reading = Reading("The folder an image lies in is its label.")
    if splits:
        reading.how = f"Top folders ({', '.join(sorted(splits))}) are splits; the folders in them are labels."
    deeper = 0
    for path, names in parts.items():
        if len(names) < level + 2:
            reading.rejected[path] = ("no_label", "Not inside a class folder.")
            continue
        split = SPLIT_NAMES[names[0].lower()] if splits else None
        reading.rows[path] = Row(tidy(names[level]), split)
        deeper += len(names) > level + 2
    if deeper:
        reading.warnings.append(f"{deeper} images lie in sub-folders of a class folder and got its label.")
    return reading


def _unwrapped(images: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Path parts without the folders that wrap everything (`mydata/cat/1.png` -> `cat/1.png`)."""
    parts = {path: tuple(path.split("/")) for path in images}
    while any(len(names) >= 3 for names in parts.values()):
        tops = {names[0] for names in parts.values()}
        if len(tops) > 1 or tops.pop().lower() in SPLIT_NAMES:
            break
        parts = {path: names[1:] or names for path, names in parts.items()}
    return parts


def _split_level(parts: Iterable[tuple[str, ...]], below: int) -> set[str]:
    """The top folders, when they are splits with at least `below` more levels; else nothing."""
    parts = list(parts)
    tops = {names[0] for names in parts if len(names) > below}
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    others = sorted(tops - splits)
    if not tops and parts and all(names[0].lower() in SPLIT_NAMES for names in parts):
        raise _ambiguous(
            f"Folders {_list(sorted({names[0] for names in parts}))} are splits and hold no class folders.",
            "Put a folder per class inside each of them, or send a label table.",
        )
    if splits and others:
        raise _ambiguous(
            f"Folders {_list(sorted(splits))} look like splits, but {_list(others)} do not.",
            "Put every class folder inside train/, val/ or test/, or rename the folders.",
        )
    return splits


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Table:
    path: str
    header: tuple[str, ...]
    columns: dict[str, str]  # path | label | split | group -> column name; empty: not a label table
    rows: list[dict[str, str]]


def _parse(path: str, data: bytes, label_column: str) -> _Table:
    """Raises BadRequest `unreadable_table`."""
    try:
        text = data.decode("utf-8-sig")
        rows = _json_rows(text) if path.lower().endswith(".jsonl") else _csv_rows(text)
    except (ValueError, csv.Error) as error:
        raise BadRequest(
            f"{path} cannot be read as a table: {error}.",
            code="unreadable_table",
            hint="Write it as UTF-8, CSV with a header line or one JSON object per line.",
        ) from error
    header = tuple(rows[0]) if rows else ()
    lower = {name.strip().lower(): name for name in header}
    found = {"path": next((lower[name] for name in PATH_COLUMNS if name in lower), None)}
    found |= {"label": lower.get(label_column), "split": lower.get("split"), "group": lower.get("group")}
    columns = {role: name for role, name in found.items() if name is not None}
    return _Table(path, header, columns if {"path", "label"} <= columns.keys() else {}, rows)


def _csv_rows(text: str) -> list[dict[str, str]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="", strict=True)
    return [{name: value or "" for name, value in row.items() if name} for row in reader]


def _json_rows(text: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        row: Any = orjson.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not an object")
        rows.append({str(name): _text(name, value) for name, value in row.items()})
    return rows


def _text(name: str, value: object) -> str:
    if name.lower() == "label" and isinstance(value, list | dict):
        raise _ambiguous("A row of the table has several labels for one image.", "Give one label per image.")
    return "" if value is None else str(value)


def _wanted(table: _Table, reader: Reader) -> bool:
    metadata = posixpath.basename(table.path).lower() in ("metadata.csv", "metadata.jsonl")
    return reader == "auto" or metadata == (reader == "imagefolder")


def _from_tables(images: Sequence[str], tables: list[_Table], refused: set[str], *, trust: bool) -> Reading:
    """`trust`: the user named the tables as the source, so folders may say otherwise."""
    names = _list([table.path for table in tables])
    reading = Reading(f"Labels come from {names}.", tables=[table.path for table in tables])
    parts = _unwrapped(images)
    known, missing = {path: path for path in (*images, *refused)}, list[str]()
    bare = Counter(posixpath.basename(path) for path in known)
    known |= {posixpath.basename(p): p for p in tuple(known) if bare[posixpath.basename(p)] == 1 and "/" in p}
    for table in tables:
        for raw in table.rows:
            path = _find(raw.get(table.columns["path"], ""), table.path, known)
            if path is None:
                missing.append(raw.get(table.columns["path"], ""))
            elif path not in refused:
                _add_row(reading, path, raw, table)
    unsplit = any(row.split is None for row in reading.rows.values())
    splits = _split_level(parts.values(), below=1) if unsplit and not trust else set[str]()
    for path in images:
        row = reading.rows.get(path)
        if path in reading.rejected:
            reading.rows.pop(path, None)
        elif row is None:
            reading.rejected[path] = ("no_label", f"Not listed in {names}.")
        elif row.split is None and splits:
            reading.rows[path] = Row(row.label, SPLIT_NAMES.get(parts[path][0].lower()), row.group)
    if missing:
        reading.warnings.append(f"{len(missing)} rows name a file that was not sent: {_list(missing)}.")
    if not trust:
        _refuse_rival_folders(reading, parts, 1 if splits else 0)
    return reading


def _find(name: str, table: str, known: Mapping[str, str]) -> str | None:
    """The archive path a row means: beside the table first, then from the top; a bare name that only one file
    of the archive has means that file. `known` leads from names to paths."""
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    for base in (posixpath.dirname(table), ""):
        path = posixpath.normpath(posixpath.join(base, name))
        if path in known:
            return known[path]
    return None


def _add_row(reading: Reading, path: str, raw: dict[str, str], table: _Table) -> None:
    said = {role: tidy(raw.get(column, "")) for role, column in table.columns.items()}
    label, split = said["label"], said.get("split", "")
    if not label:
        reading.rejected[path] = ("no_label", f"Its label in {table.path} is empty.")
    elif split and split.lower() not in SPLIT_NAMES:
        reason = f"Split {split!r} in {table.path} is none of train, val and test."
        reading.rejected[path] = ("unknown_split", reason)
    else:
        row = Row(label, SPLIT_NAMES[split.lower()] if split else None, said.get("group") or None)
        if reading.rows.setdefault(path, row) != row:
            raise _ambiguous(
                f"{path} is listed twice, as {reading.rows[path].label!r} and as {label!r}.",
                "List every image once, with one label.",
            )


def _refuse_rival_folders(reading: Reading, parts: Mapping[str, tuple[str, ...]], level: int) -> None:
    """Folders named like labels must agree with the table; other folders only have nothing to say."""
    folders = {path: tidy(names[level]) for path, names in parts.items() if len(names) > level + 1}
    if {row.label for row in reading.rows.values()}.isdisjoint(folders.values()):
        if len(set(folders.values())) > 1:
            names = _list(sorted(set(folders.values())))
            reading.warnings.append(f"Folder names ({names}) were not read as labels: a table gives them.")
        return
    for path, row in reading.rows.items():
        folder = folders.get(path)
        if folder is not None and folder != row.label:
            raise _ambiguous(
                f"{path} lies in folder {folder!r} but the table calls it {row.label!r}.",
                "Correct one of the two, or say which counts: format=folders, or format=csv or imagefolder.",
            )


def _columns_hint(tables: list[_Table]) -> str:
    seen = "; ".join(f"{table.path} has {', '.join(table.header[:8])}" for table in tables[:3])
    return "A label table needs the columns path,label (and may have split,group)." + (seen and f" {seen}.")


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _ambiguous(detail: str, hint: str) -> BadRequest:
    return BadRequest(detail, code="ambiguous_labels", hint=hint)
