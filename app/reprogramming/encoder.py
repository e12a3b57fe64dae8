"""Rows, series and symbol sequences as pictures, so that an image API can serve them.

An encoder is fitted on the training records of a data set (quantiles, range, alphabet) and is data from then
on: the data set, the program and the artifact carry its JSON values, so that training and serving draw the
same picture of the same record. Nothing here is random.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images
from app.reprogramming.tiles import (
    SIDE,
    Cell,
    Column,
    Floats,
    Kind,
    Record,
    TableEncoder,
    fit_table,
    grid_of,
    hue,
    patches,
    wrong_shape,
)

__all__ = [
    "KINDS",
    "Encoder",
    "Kind",
    "Record",
    "SequenceEncoder",
    "SeriesEncoder",
    "TableEncoder",
    "fit",
    "from_config",
    "shape",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST = 4096  # values of a series, symbols of a sequence
MOST_SYMBOLS = 256
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
        return fit_table(cast("Sequence[Sequence[Cell]]", train), columns, numeric)
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


def shape(encoder: Encoder | None) -> dict[str, Any]:
    """What predict takes, as JSON values: kind, the columns of a table (name, type, values of a category),
    length of series and sequences (the longest that is read in full where not `fixed`), and an example.
    None: images."""
    found: dict[str, Any] = {"kind": "image", "columns": None, "length": None, "fixed": None, "example": None}
    if encoder is None:
        return found
    found["kind"] = encoder.kind
    if isinstance(encoder, TableEncoder):
        columns = [
            {"name": c.name, "type": "number" if c.numeric else "category", "values": list(c.categories)}
            for c in encoder.columns
        ]
        return found | {"columns": columns, "example": {c.name: c.usual for c in encoder.columns}}
    if isinstance(encoder, SeriesEncoder):
        wave = np.sin(np.arange(encoder.length) / 3) / 2 + 0.5
        values = encoder.low + (encoder.high - encoder.low) * wave
        found["example"] = [float(f"{value:.4g}") for value in values]
    elif isinstance(encoder, SequenceEncoder):
        found["example"] = (encoder.alphabet * encoder.length)[: encoder.length]
    config = encoder.config()
    return found | {"length": config["length"], "fixed": config["fixed"]}


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
            raise wrong_shape("The input is no series.", "Send a list of numbers; null is a missing value.")
        series = cast("Sequence[float | None]", items)
        if self.fixed and len(series) != self.length:
            detail = f"The series has {len(series)} values, not {self.length}."
            raise wrong_shape(detail, f"Every training series had {self.length}.")
        if sum(x is not None for x in series) < 2 or len(series) > LONGEST:
            raise wrong_shape("The series has too few or too many values.", f"Send 2 to {LONGEST} numbers.")
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
        raise wrong_shape(f"A series has {max(lengths)} values.", f"Send series of 2 to {LONGEST} values.")
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
        return grid_of(self.length)[2:]

    def read(self, value: object) -> Record:
        if not isinstance(value, str):
            raise wrong_shape("The input is no sequence.", "Send a text like 'ACGT'.")
        text = value.strip().upper()
        if self.fixed and len(text) != self.length:
            detail = f"The sequence has {len(text)} symbols, not {self.length}."
            raise wrong_shape(detail, f"Every training sequence had {self.length}.")
        known = sum(symbol in self.alphabet for symbol in text)
        if 2 * known < len(text) or not text:
            detail = "Most symbols of the sequence were not seen in training." if text else "It is empty."
            raise wrong_shape(detail, f"The symbols are {self.alphabet[:80]!r}.")
        return text

    def image(self, record: Record) -> Images:
        codes = self._codes(record)
        colours = np.array(
            [*(hue(i, len(self.alphabet)) for i in range(len(self.alphabet))), UNKNOWN], np.uint8
        )
        return patches(colours[codes], self.length)

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
        raise wrong_shape(detail, f"Send at most {MOST_SYMBOLS} different symbols, {LONGEST} a sequence.")
    return SequenceEncoder(alphabet, min(max(lengths), LONGEST), len(lengths) == 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
