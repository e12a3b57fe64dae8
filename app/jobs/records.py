"""Data without pictures: tables, series and symbol sequences, from text to labelled records."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from app.contracts import Split
from app.errors import BadRequest, TooLarge, UnsupportedType
from app.jobs.labels import PATH_COLUMNS, SPLIT_NAMES, tidy
from app.reprogramming.tiles import MOST_CATEGORIES, Cell, Kind, Record

SUFFIXES = (".csv", ".tsv", ".txt", ".arff", ".data", ".fasta", ".fa")
LABELS = ("label", "class", "target", "y")
SEQUENCES = ("sequence", "seq", "text")
NUMBERING = ("", "id", "index")  # columns that number the rows
ABSENT = ("", "?", "na", "n/a", "nan", "null")
MOST_CELLS = 5_000_000
SERIES_COLUMNS = 16  # numbered columns from which a table may be meant as series
_SPLIT = re.compile(r"(?:^|[_\-. ])(" + "|".join(SPLIT_NAMES) + r")(?=[_\-. ]|$)", re.IGNORECASE)
_NUMBERED = re.compile(r"[a-z_ ]{0,8}?_?(\d+)", re.IGNORECASE)


@dataclass
class Row:
    """One record: `value` as the encoder takes it once `read` is through."""

    file: str
    value: Record
    label: str
    split: Split | None = None
    group: str | None = None


@dataclass
class Records:
    """What an upload says. `columns` are a table's features, `numeric` which of them are numbers."""

    kind: Kind
    columns: list[str] = field(default_factory=list[str])
    numeric: list[bool] = field(default_factory=list[bool])
    rows: list[Row] = field(default_factory=list[Row])
    rejected: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    warnings: list[str] = field(default_factory=list[str])
    how: str = ""


@dataclass(frozen=True)
class Sheet:
    """One text or file as cells. `header` is None where the first line is data already."""

    path: str  # "" for a body that has no name
    header: tuple[str, ...] | None
    rows: Iterable[tuple[int, Sequence[str]]]  # (line number, cells)
    hint: Kind | None = None  # what its syntax says it is
    last_is_label: bool = False  # ARFF's habit


def read(sheets: Iterable[Sheet], asked: Kind | None, label_column: str | None) -> Records:
    """All sheets as one list of records. `asked` is the kind the user named.

    Raises BadRequest `ambiguous_format`, `label_column_missing`, `unreadable_table`, and TooLarge.
    """
    found: Records | None = None
    cells = 0
    every = list(sheets)
    named: list[Split | None] = [_split_named(sheet.path) for sheet in every]
    for sheet, split in zip(every, named, strict=True):
        layout = _layout(sheet, asked, label_column)
        if found is None:
            found = Records(layout.kind, list(layout.columns), how=layout.how)
            found.warnings += layout.warnings
        if (found.kind, found.columns) != (layout.kind, list(layout.columns)):
            raise _unreadable(sheet.path, "its columns are not those of the other files")
        for number, row in _rows(sheet):
            cells += len(row) if found.kind != "sequence" else 1
            if cells > MOST_CELLS:
                raise TooLarge(f"The upload has more than {MOST_CELLS:,} cells.", hint="Send fewer rows.")
            _add(found, layout, sheet.path, number, row, split if all(named) else None)
    if found is None:
        raise BadRequest("The upload holds no text.", code="empty_dataset", hint="Send a CSV file.")
    if found.kind == "table":
        _type(found)
    return found


def sheet(path: str, data: bytes) -> Sheet:
    """A text by its syntax: ARFF, FASTA, or cells by comma, semicolon, tab or blanks. Raises BadRequest."""
    try:
        text = data.decode("utf-8-sig")
    except ValueError as error:
        raise _unreadable(path, "it is not UTF-8") from error
    lines = text.splitlines()
    first = next((line.strip() for line in lines if line.strip() and not line.startswith("%")), "")
    if first.lower().startswith("@relation"):
        return _arff(path, lines)
    if first.startswith(">"):
        return Sheet(path, ("sequence", "label"), _fasta(lines), "sequence")
    counted = {mark: first.count(mark) for mark in ",;\t"}
    mark = max(counted, key=lambda key: counted[key])
    if not counted[mark]:
        rows = ((n, line.split()) for n, line in enumerate(lines, 1) if line.strip())
    else:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        rows = ((reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row))
    cells = tuple(cell.strip() for cell in first.split(mark if counted[mark] else None))
    if all(_number(cell) is not None for cell in cells if cell.lower() not in ABSENT):
        return Sheet(path, None, rows, "series" if mark == "\t" or not counted[mark] else None)
    labelled_text = mark == "\t" and len(cells) == 2 and not {c.lower() for c in cells} & {*LABELS}
    if labelled_text:
        return Sheet(path, ("label", "sequence"), rows, "sequence")
    if len(cells) == 1:
        raise UnsupportedType(
            f"{path or 'The upload'} is text, but no table.",
            hint="Send CSV with a header line, ARFF, FASTA or UCR series; pictures in a zip.",
        )
    return Sheet(path, _first(rows, path), rows)


def _first(rows: Iterator[tuple[int, list[str]]], path: str) -> tuple[str, ...]:
    try:
        return tuple(next(rows, (0, []))[1])
    except csv.Error as error:
        raise _unreadable(path, str(error)) from error


def _rows(sheet: Sheet) -> Iterator[tuple[int, Sequence[str]]]:
    try:
        yield from sheet.rows
    except csv.Error as error:
        raise _unreadable(sheet.path, str(error)) from error


def _arff(path: str, lines: list[str]) -> Sheet:
    """Attribute-Relation File Format (Weka): attributes, then comma-separated rows. No sparse rows."""
    names: list[str] = []
    for n, line in enumerate(lines):
        words = line.strip()
        if words.lower().startswith("@data"):
            rows = csv.reader(lines[n + 1 :], skipinitialspace=True, quotechar="'")
            numbered = ((n + 1 + rows.line_num, [cell.strip() for cell in row]) for row in rows if any(row))
            return Sheet(
                path, tuple(names), (r for r in numbered if not r[1][0].startswith("%")), "table", True
            )
        match = re.match(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s", words + " ", re.IGNORECASE)
        if match:
            names.append(match[1].strip("'\""))
    raise _unreadable(path, "an ARFF without @data")


def _fasta(lines: list[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """`>name label` or `>... label=x`, then the sequence on one line or several."""
    label, at, parts = "", 0, list[str]()
    for n, line in enumerate([*lines, ">"], 1):
        if not line.startswith(">"):
            parts.append(line.strip())
            continue
        if at:
            yield at, ("".join(parts), label)
        said = re.search(r"label=(\S+)", line)
        words = line[1:].split()
        label, at, parts = said[1] if said else words[-1] if len(words) > 1 else "", n, []


# ---------------------------------------------------------------- which column is what


@dataclass(frozen=True)
class _Layout:
    kind: Kind
    width: int | None  # cells of a row; None: as many as it has
    label: int
    split: int | None
    group: int | None
    values: tuple[int, ...] | None  # cells of the record; None: all but the label
    columns: tuple[str, ...]
    how: str
    warnings: tuple[str, ...] = ()


def _layout(sheet: Sheet, asked: Kind | None, label_column: str | None) -> _Layout:
    """Raises BadRequest `ambiguous_format`, `label_column_missing`."""
    header = sheet.header
    if header is None:
        kind = asked or sheet.hint
        if kind is None:
            raise _ambiguous("The rows are numbers without a header: a table or series?")
        if kind != "series":
            raise _no_label("The first line is no header.", "Add a header line with a column `label`.")
        return _Layout(kind, None, 0, None, None, None, (), "The first cell of a row is its label.")
    lower = [name.lower() for name in header]
    label = _label_column(header, lower, label_column, sheet.last_is_label)
    text = next((j for j, name in enumerate(lower) if name in SEQUENCES and j != label), None)
    reserved = {name: lower.index(name) for name in ("split", "group") if name in lower}
    numbering = [j for j, name in enumerate(lower) if name in NUMBERING]
    values = tuple(j for j in range(len(header)) if j not in {label, *reserved.values(), *numbering})
    kind = asked or sheet.hint or _guess(lower, values, text)
    if kind == "sequence":
        if text is None and len(values) != 1:
            raise _no_label("No column `sequence`.", f"The columns are {', '.join(header[:8])}.")
        values = (values[0] if text is None else text,)
    if not values:
        raise _no_label("There is no column beside the label.", "Send the features, too.")
    return _Layout(
        kind,
        len(header),
        label,
        reserved.get("split"),
        reserved.get("group"),
        values,
        tuple(header[j] for j in values) if kind == "table" else (),
        f"Column {header[label]!r} is the label."
        + (f" Columns {', '.join(reserved)} were read as such." if reserved else ""),
        tuple(f"Column {header[j]!r} numbers the rows and was left out." for j in numbering if j != label),
    )


def _label_column(header: Sequence[str], lower: list[str], named: str | None, last: bool) -> int:
    if len(set(header)) < len(header):
        raise _no_label("Two columns have one name.", f"The columns are {', '.join(header[:12])}.")
    if named is not None:
        if named not in header:
            raise _no_label(
                f"There is no column {named!r}.", f"The columns are {', '.join(header[:12])}.", "label_column"
            )
        return list(header).index(named)
    found = next((lower.index(name) for name in LABELS if name in lower), None)
    if found is None and not last:
        raise _no_label(
            f"None of the columns {', '.join(header[:12])} is a label.",
            "Name it `label`, or say which one it is: ?label_column=NAME.",
        )
    return len(header) - 1 if found is None else found


def _guess(lower: list[str], values: tuple[int, ...], text: int | None) -> Kind:
    if any(name in PATH_COLUMNS for name in lower):
        raise _ambiguous("A column names files: is this the manifest of pictures?", "Send a zip of both.")
    if text is not None and len(values) == 1:
        return "sequence"
    numbers = [_NUMBERED.fullmatch(lower[j]) for j in values]
    if len(values) >= SERIES_COLUMNS and all(numbers):
        raise _ambiguous(f"The {len(values)} columns are numbered: a table or series?")
    return "table"


def _add(
    found: Records, layout: _Layout, path: str, number: int, row: Sequence[str], split: Split | None
) -> None:
    """One row into the records, or into the rejected ones with a reason."""
    file = f"{path}:{number}" if path else f"line {number}"
    if layout.width is not None and len(row) != layout.width:
        reason = f"It has {len(row)} cells; the header has {layout.width}."
        found.rejected.append((file, "wrong_shape", reason))
        return
    label = _plain(row[layout.label])
    if not label:
        found.rejected.append((file, "no_label", "Its label is empty."))
        return
    if layout.split is not None and row[layout.split]:
        if row[layout.split].lower() not in SPLIT_NAMES:
            reason = f"Split {row[layout.split][:40]!r} is none of train, val and test."
            found.rejected.append((file, "unknown_split", reason))
            return
        split = SPLIT_NAMES[row[layout.split].lower()]
    cells = row[1:] if layout.values is None else [row[j] for j in layout.values]
    value = _value(found.kind, cells)
    if value is None:
        reasons = {"series": "It is not a series of at least 2 numbers.", "sequence": "It is empty."}
        found.rejected.append((file, "wrong_shape", reasons[found.kind]))
        return
    group = tidy(row[layout.group]) if layout.group is not None else None
    found.rows.append(Row(file, value, label, split, group or None))


def _value(kind: Kind, cells: Sequence[str]) -> Record | None:
    if kind == "sequence":
        return tidy(cells[0]).upper() or None
    absent = [cell.lower() in ABSENT for cell in cells]
    if kind == "table":
        return [None if gone else cell for cell, gone in zip(cells, absent, strict=True)]
    numbers = [_number(cell) for cell in cells]
    while absent and absent[-1]:  # series of unequal length are padded
        absent.pop()
        numbers.pop()
    if len(numbers) - sum(absent) < 2:
        return None
    broken = any(x is None and not gone for x, gone in zip(numbers, absent, strict=True))
    return None if broken else numbers


def _type(found: Records) -> None:
    """Numbers where all cells of a column are; columns that cannot be drawn are left out with a warning."""
    kept: list[int] = []
    for j, name in enumerate(found.columns):
        cells = {row.value[j] for row in found.rows} - {None}
        numeric = all(_number(str(cell)) is not None for cell in cells)
        if not cells:
            found.warnings.append(f"Column {name!r} is empty and was left out.")
        elif not numeric and len(cells) > MOST_CATEGORIES:
            found.warnings.append(f"Column {name!r} has {len(cells)} different texts and was left out.")
        else:
            kept.append(j)
            found.numeric.append(numeric)
    if not kept and found.rows:
        raise _no_label("No column can be used.", " ".join(found.warnings))
    found.columns = [found.columns[j] for j in kept]
    for row in found.rows:
        row.value = [_cell(row.value[j], numeric) for j, numeric in zip(kept, found.numeric, strict=True)]


def _cell(cell: Cell, numeric: bool) -> Cell:
    return _number(str(cell)) if numeric and cell is not None else cell


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None  # NaN compares false: no number either


def _plain(text: str) -> str:
    """A label; `1.0000000e+00` of the UCR archive is 1."""
    number = _number(text) if re.search(r"[.eE]", text) else None
    return str(int(number)) if number is not None and number.is_integer() else tidy(text)


def _split_named(path: str) -> Split | None:
    """The split a file's name or folder says: ECG200_TRAIN.txt, train/data.csv."""
    for part in (PurePosixPath(path).stem, *PurePosixPath(path).parts[:-1]):
        if match := _SPLIT.search(part):
            return SPLIT_NAMES[match[1].lower()]
    return None


def _ambiguous(
    detail: str, hint: str = "Send format=table (features) or format=series (values in time)."
) -> BadRequest:
    return BadRequest(detail, code="ambiguous_format", param="format", hint=hint)


def _no_label(detail: str, hint: str, param: str | None = None) -> BadRequest:
    return BadRequest(detail, code="label_column_missing", hint=hint, param=param)


def _unreadable(path: str, why: str) -> BadRequest:
    return BadRequest(
        f"{path or 'The upload'} cannot be read as a table: {why}.",
        code="unreadable_table",
        hint="Send UTF-8 text: CSV with a header line, ARFF, FASTA or UCR series.",
    )
