"""Rows, series and symbol sequences as pictures, so that an image API can serve them.

An encoder is fitted on the training records of a data set (quantiles, range, alphabet) and is data from then
on: the data set, the program and the artifact carry its JSON values, so that training and serving draw the
same picture of the same record. Nothing here is random.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images
from app.errors import BadRequest

Kind = Literal["table", "series", "sequence"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Cell: TypeAlias = float | str | None
#: A row's cells, a series' values (None: missing), or a text.
Record: TypeAlias = Sequence[Cell] | str
Floats: TypeAlias = NDArray[np.float64]

SIDE = 96  # pixels of a picture, about
MOST_COLUMNS = 1024
LONGEST = 4096  # values of a series, symbols of a sequence
MOST_SYMBOLS = 256
MOST_CATEGORIES = 64
KNOTS = 33  # quantiles kept of a numeric column
MISSING = (0, 0, 255)
UNKNOWN = (128, 128, 128)
ONE_HOT = 2048  # columns of a sequence's position features at most


class Encoder(Protocol):
    """One kind of record to pictures of one size."""

    kind: ClassVar[Kind]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures, pixels."""
        ...

    def read(self, value: object) -> Record:
        """A JSON value as a record. Raises BadRequest `wrong_shape`."""
        ...

    def image(self, record: Record) -> Images:
        """uint8 (h, w, 3), the same size for every record."""
        ...

    def features(self, record: Record) -> Floats:
        """(F,) what a model without an image would be given: the ground of the free baseline."""
        ...

    def config(self) -> dict[str, Any]:
        """JSON values; `from_config` is the inverse."""
        ...


def fit(
    kind: Kind,
    train: Sequence[Record],
    lengths: Collection[int],
    columns: Sequence[str] = (),
    numeric: Sequence[bool] = (),
) -> Encoder:
    """The encoder of training records. `lengths` are those of all records: they decide shapes alone.
    `columns` and which of them are `numeric` matter for tables.

    Raises BadRequest `wrong_shape` for records too long or too various to draw.
    """
    if kind == "table":
        return _fit_table(cast("Sequence[Sequence[Cell]]", train), columns, numeric)
    if kind == "series":
        return _fit_series(cast("Sequence[Sequence[float | None]]", train), set(lengths))
    return _fit_sequence(cast("Sequence[str]", train), set(lengths))


def from_config(config: Mapping[str, Any]) -> Encoder:
    """Safe on values from strangers. Raises ValueError, TypeError or KeyError."""
    kind = config["kind"]
    if kind == "table":
        return TableEncoder(tuple(Column.read(column) for column in config["columns"]))
    if kind == "series":
        length, low, high = int(config["length"]), float(config["low"]), float(config["high"])
        return SeriesEncoder(length, bool(config["fixed"]), low, high)
    if kind == "sequence":
        return SequenceEncoder(str(config["alphabet"]), int(config["length"]), bool(config["fixed"]))
    raise ValueError(f"no records are called {kind!r}")


# ---------------------------------------------------------------- tables: a tile per feature


@dataclass(frozen=True)
class Column:
    """Numeric: training values `knots` (increasing) with their `ranks` in 0..1. Else: its `categories`."""

    name: str
    knots: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @staticmethod
    def read(config: Mapping[str, Any]) -> Column:
        """Raises ValueError."""
        column = Column(
            str(config["name"]),
            tuple(float(x) for x in config["knots"]),
            tuple(float(x) for x in config["ranks"]),
            tuple(str(x) for x in config["categories"]),
        )
        numbers = np.array([*column.knots, *column.ranks])
        increasing = bool((np.diff(column.knots) > 0).all())
        if len(column.knots) != len(column.ranks) or not np.isfinite(numbers).all() or not increasing:
            raise ValueError("knots and ranks do not fit together")
        if len(column.knots) > KNOTS or len(column.categories) > MOST_CATEGORIES:
            raise ValueError("a column has too many knots or categories")
        return column

    @property
    def numeric(self) -> bool:
        return bool(self.knots)

    @property
    def median(self) -> float:
        return float(np.interp(0.5, self.ranks, self.knots))

    def cell(self, value: object) -> Cell:
        """A JSON value as a cell. Raises ValueError."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str | int | float):
            raise ValueError(f"{self.name!r} is neither a number nor a text")
        if not self.numeric:
            return self._category(str(value).strip())
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{self.name!r} is a number; {str(value)[:40]!r} is none")
        return number

    def _category(self, text: str) -> str:
        if text in self.categories:
            return text
        return next((c for c in self.categories if c.casefold() == text.casefold()), text)


@dataclass(frozen=True)
class TableEncoder:
    """A square tile per feature, row by row (feature tiles of Chen, Fan and Ye 2021, CIKM).

    A number's tile has the grey of its rank among the training rows, a category's the hue of its place in the
    sorted list. A missing cell, or a category not seen in training, is blue; tiles beyond the last are black.
    """

    kind: ClassVar[Kind] = "table"
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.columns) <= MOST_COLUMNS:
            raise ValueError(f"a table has 1 to {MOST_COLUMNS} columns")

    @property
    def size(self) -> tuple[int, int]:
        return _grid(len(self.columns))[2:]

    def read(self, value: object) -> Record:
        names = [column.name for column in self.columns]
        if isinstance(value, Mapping):
            row = cast("Mapping[str, object]", value)
            lacking, strange = [n for n in names if n not in row], [n for n in row if n not in names]
            if lacking or strange:
                what = f"lacks {_list(lacking)}" if lacking else f"has the unknown column {_list(strange)}"
                raise _wrong(f"The row {what}.", f"A row has {_list(names)}; null is a missing cell.")
            cells = [row[name] for name in names]
        elif isinstance(value, list | tuple):
            cells = cast("Sequence[object]", value)
            if len(cells) != len(names):
                detail = f"The row has {len(cells)} cells, not {len(names)}."
                raise _wrong(detail, f"They are {_list(names)}, in this order; null is a missing cell.")
        else:
            raise _wrong("The input is no row.", f'Send an object like {{"{names[0]}": ...}}, or a list.')
        try:
            return [column.cell(cell) for column, cell in zip(self.columns, cells, strict=True)]
        except ValueError as error:
            raise _wrong(f"{error}.", "Send numbers as JSON numbers and null for a missing cell.") from error

    def image(self, record: Record) -> Images:
        colours = [self._colour(column, cell) for column, cell in zip(self.columns, record, strict=True)]
        return _patches(np.array(colours, np.uint8), len(self.columns))

    @staticmethod
    def _colour(column: Column, cell: Cell) -> tuple[int, int, int]:
        if cell is None or (not column.numeric and cell not in column.categories):
            return MISSING
        if column.numeric:
            grey = round(255 * float(np.interp(float(cell), column.knots, column.ranks)))
            return grey, grey, grey
        return _hue(column.categories.index(str(cell)), len(column.categories))

    def features(self, record: Record) -> Floats:
        """Numbers as they are, a missing one as the training median, each with its rank and a flag; categories
        one-hot."""
        out: list[float] = []
        for column, cell in zip(self.columns, record, strict=True):
            if column.numeric:
                number = column.median if cell is None else float(cell)
                out += [number, float(np.interp(number, column.knots, column.ranks)), float(cell is None)]
            else:
                out += [float(cell == category) for category in column.categories]
        return np.array(out)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": [asdict(column) for column in self.columns]}


def _fit_table(
    records: Sequence[Sequence[Cell]], columns: Sequence[str], numeric: Sequence[bool]
) -> TableEncoder:
    if len(columns) > MOST_COLUMNS:
        raise _wrong(f"The table has {len(columns)} columns.", f"Send at most {MOST_COLUMNS}.")
    fitted: list[Column] = []
    for j, name in enumerate(columns):
        cells = [row[j] for row in records if row[j] is not None]
        if numeric[j]:
            knots, ranks = _ranked(np.array(cells, np.float64) if cells else np.zeros(1))
            fitted.append(Column(name, knots, ranks))
        else:
            fitted.append(Column(name, categories=tuple(sorted({str(cell) for cell in cells}))))
    return TableEncoder(tuple(fitted))


def _ranked(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Quantiles, each once, with the mean rank of its ties."""
    shares = np.linspace(0, 1, KNOTS)
    found, inverse = np.unique(np.quantile(values, shares), return_inverse=True)
    ranks = np.bincount(inverse, shares) / np.bincount(inverse)
    return tuple(found.tolist()), tuple(ranks.tolist())


# ---------------------------------------------------------------- series: a line and a recurrence picture


@dataclass(frozen=True)
class SeriesEncoder:
    """Two pictures, one above the other; time runs to the right. Above: the line with the area under it
    filled (the series written into the input as it is, as in Voice2Series, Yang et al. 2021). Below: the
    recurrence picture (Eckmann et al. 1987) of values i and j, red where alike, green to blue by which is
    the larger. `low` and `high` are the 1st and 99th percent of the training values.

    With `fixed` every training series had `length` values and others are refused; else they are stretched.
    """

    kind: ClassVar[Kind] = "series"
    length: int
    fixed: bool
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 2 <= self.length <= LONGEST or not -1e300 < self.low < self.high < 1e300:
            raise ValueError("length or range of the series out of range")

    @property
    def size(self) -> tuple[int, int]:
        return SIDE, SIDE

    def read(self, value: object) -> Record:
        items = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
        if not items or not all(x is None or _is_number(x) for x in items):
            raise _wrong("The input is no series.", "Send a list of numbers; null is a missing value.")
        series = cast("Sequence[float | None]", items)
        if self.fixed and len(series) != self.length:
            detail = f"The series has {len(series)} values, not {self.length}."
            raise _wrong(detail, f"Every training series had {self.length}.")
        if sum(x is not None for x in series) < 2 or len(series) > LONGEST:
            raise _wrong("The series has too few or too many values.", f"Send 2 to {LONGEST} numbers.")
        return series

    def values(self, record: Record) -> Floats:
        """(length,) with missing values interpolated, stretched where lengths differ."""
        found = np.array([np.nan if x is None else float(x) for x in record])
        known = np.flatnonzero(~np.isnan(found))
        if not self.fixed:
            found = found[: known[-1] + 1]
        at = np.linspace(0, len(found) - 1, self.length)
        return np.interp(at, known, found[known])

    def image(self, record: Record) -> Images:
        values = (self.values(record) - self.low) / (self.high - self.low)
        at = np.linspace(0, self.length - 1, SIDE)
        line = np.clip(np.interp(at, np.arange(self.length), values), 0, 1)
        half = SIDE // 2
        heights = np.linspace(1, 0, half)[:, None]
        area = np.clip((line[None] - heights) * half / 2 + 0.5, 0, 1)
        above = np.stack([1 - area, 1 - area / 2, np.ones_like(area)], axis=2)
        apart = (line[None] - line[::2, None] + 1) / 2
        below = np.stack([1 - np.abs(2 * apart - 1), apart, 1 - apart], axis=2)
        return np.rint(255 * np.concatenate([above, below])).astype(np.uint8)

    def features(self, record: Record) -> Floats:
        return self.values(record)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)


def _fit_series(records: Sequence[Sequence[float | None]], lengths: set[int]) -> SeriesEncoder:
    if max(lengths) > LONGEST or min(lengths) < 2:
        raise _wrong(f"A series has {max(lengths)} values.", f"Send series of 2 to {LONGEST} values.")
    values = np.array([x for record in records for x in record if x is not None], np.float64)
    low, high = np.quantile(values, [0.01, 0.99]).tolist()
    if not low < high:
        low, high = low - 0.5, low + 0.5
    return SeriesEncoder(max(lengths), len(lengths) == 1, low, high)


# ---------------------------------------------------------------- sequences: a patch per symbol


@dataclass(frozen=True)
class SequenceEncoder:
    """A square patch per symbol, row by row (Neekhara et al. 2022, section 3.1, with fixed patches).

    `alphabet` holds the training symbols in order, upper-case; each has a colour of its own, a symbol not
    seen in training is grey. Places after the last symbol are black; what is longer than `length` is cut.
    """

    kind: ClassVar[Kind] = "sequence"
    alphabet: str
    length: int
    fixed: bool

    def __post_init__(self) -> None:
        if not 1 <= len(self.alphabet) <= MOST_SYMBOLS or len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError("the alphabet is empty, too long or names a symbol twice")
        if not 1 <= self.length <= LONGEST:
            raise ValueError("length of the sequences out of range")

    @property
    def size(self) -> tuple[int, int]:
        return _grid(self.length)[2:]

    def read(self, value: object) -> Record:
        if not isinstance(value, str):
            raise _wrong("The input is no sequence.", "Send a text like 'ACGT'.")
        text = value.strip().upper()
        if self.fixed and len(text) != self.length:
            detail = f"The sequence has {len(text)} symbols, not {self.length}."
            raise _wrong(detail, f"Every training sequence had {self.length}.")
        known = sum(symbol in self.alphabet for symbol in text)
        if 2 * known < len(text) or not text:
            detail = "Most symbols of the sequence were not seen in training." if text else "It is empty."
            raise _wrong(detail, f"The symbols are {self.alphabet[:80]!r}.")
        return text

    def image(self, record: Record) -> Images:
        codes = self._codes(record)
        colours = np.array(
            [*(_hue(i, len(self.alphabet)) for i in range(len(self.alphabet))), UNKNOWN], np.uint8
        )
        return _patches(colours[codes], self.length)

    def features(self, record: Record) -> Floats:
        """Symbols at their places, one-hot, where that is at most ONE_HOT columns; then shares of n-grams."""
        size, codes = len(self.alphabet), self._codes(record)
        n = 3 if size <= 5 else 2 if size <= 40 else 1
        known = np.lib.stride_tricks.sliding_window_view(codes, n) if len(codes) >= n else np.empty((0, n))
        known = known[(known < size).all(axis=1)].astype(np.intp)
        grams = np.bincount(known @ (size ** np.arange(n)), minlength=size**n) / max(1, len(known))
        if size * self.length > ONE_HOT:
            return grams.astype(np.float64)
        places = np.zeros((self.length, size + 1))
        places[np.arange(len(codes)), codes] = 1
        return np.concatenate([places[:, :size].ravel(), grams])

    def _codes(self, record: Record) -> NDArray[np.intp]:
        """(n,) places in the alphabet, its length for an unknown symbol; n at most `length`."""
        number = {symbol: i for i, symbol in enumerate(self.alphabet)}
        text = cast("str", record)[: self.length]
        return np.array([number.get(symbol, len(self.alphabet)) for symbol in text], np.intp)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind} | asdict(self)


def _fit_sequence(records: Sequence[str], lengths: set[int]) -> SequenceEncoder:
    alphabet = "".join(sorted({symbol for record in records for symbol in record}))
    if len(alphabet) > MOST_SYMBOLS or (len(lengths) == 1 and max(lengths) > LONGEST):
        detail = f"The sequences have {len(alphabet)} different symbols and up to {max(lengths)} of them."
        raise _wrong(detail, f"Send at most {MOST_SYMBOLS} different symbols, {LONGEST} a sequence.")
    return SequenceEncoder(alphabet, min(max(lengths), LONGEST), len(lengths) == 1)


# ---------------------------------------------------------------- colours and patches


def _patches(colours: NDArray[np.uint8], places: int) -> Images:
    """(n, 3) colours as square patches, row by row, on a grid with room for `places`."""
    across, side, _, _ = _grid(places)
    grid = np.zeros((across * across, 3), np.uint8)
    grid[: len(colours)] = colours
    return np.repeat(np.repeat(grid.reshape(across, across, 3), side, axis=0), side, axis=1)


def _grid(places: int) -> tuple[int, int, int, int]:
    """Patches a side, pixels of a patch, height and width."""
    across = math.ceil(math.sqrt(places))
    side = max(2, SIDE // across)
    return across, side, across * side, across * side


def _hue(i: int, n: int) -> tuple[int, int, int]:
    """Colour i of n, evenly around the circle from red, all of full strength."""
    third = 6 * i / max(n, 1)
    rgb = [min(1.0, max(0.0, abs((third + shift) % 6 - 3) - 1)) for shift in (0, 4, 2)]
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more


def _wrong(detail: str, hint: str) -> BadRequest:
    return BadRequest(detail, code="wrong_shape", hint=hint)
