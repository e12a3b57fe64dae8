"""Colours and patches of the encoder, and rows of a table as tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from app.contracts import Images
from app.errors import BadRequest

Kind = Literal["table", "series", "sequence"]
Cell: TypeAlias = float | str | None
#: A row's cells, a series' values (None: missing), or a text.
Record: TypeAlias = Sequence[Cell] | str
Floats: TypeAlias = NDArray[np.float64]

SIDE = 96  # pixels of a picture, about
MOST_COLUMNS = 1024
MOST_CATEGORIES = 64
KNOTS = 33  # quantiles kept of a numeric column
MISSING = (0, 0, 255)


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

    @property
    def usual(self) -> Cell:
        """A value to show: about the median, or the first category; None where there was none."""
        return float(f"{self.median:.4g}") if self.numeric else next(iter(self.categories), None)

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
        return grid_of(len(self.columns))[2:]

    def read(self, value: object) -> Record:
        names = [column.name for column in self.columns]
        if isinstance(value, Mapping):
            row = cast("Mapping[str, object]", value)
            lacking, strange = [n for n in names if n not in row], [n for n in row if n not in names]
            if lacking or strange:
                what = f"lacks {listed(lacking)}" if lacking else f"has the unknown column {listed(strange)}"
                raise wrong_shape(f"The row {what}.", f"A row has {listed(names)}; null is a missing cell.")
            cells = [row[name] for name in names]
        elif isinstance(value, list | tuple):
            cells = cast("Sequence[object]", value)
            if len(cells) != len(names):
                detail = f"The row has {len(cells)} cells, not {len(names)}."
                raise wrong_shape(detail, f"They are {listed(names)}, in this order; null is a missing cell.")
        else:
            raise wrong_shape(
                "The input is no row.", f'Send an object like {{"{names[0]}": ...}}, or a list.'
            )
        try:
            return [column.cell(cell) for column, cell in zip(self.columns, cells, strict=True)]
        except ValueError as error:
            raise wrong_shape(
                f"{error}.", "Send numbers as JSON numbers and null for a missing cell."
            ) from error

    def image(self, record: Record) -> Images:
        colours = [self._colour(column, cell) for column, cell in zip(self.columns, record, strict=True)]
        return patches(np.array(colours, np.uint8), len(self.columns))

    @staticmethod
    def _colour(column: Column, cell: Cell) -> tuple[int, int, int]:
        if cell is None or (not column.numeric and cell not in column.categories):
            return MISSING
        if column.numeric:
            grey = round(255 * float(np.interp(float(cell), column.knots, column.ranks)))
            return grey, grey, grey
        return hue(column.categories.index(str(cell)), len(column.categories))

    def features(self, record: Record) -> Floats:
        """Numbers as they are, a missing one as the training median, each with its rank and a flag;
        categories one-hot."""
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


def fit_table(
    records: Sequence[Sequence[Cell]], columns: Sequence[str], numeric: Sequence[bool]
) -> TableEncoder:
    """Ranks and categories of training rows. Raises BadRequest `wrong_shape`."""
    if len(columns) > MOST_COLUMNS:
        raise wrong_shape(f"The table has {len(columns)} columns.", f"Send at most {MOST_COLUMNS}.")
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


def patches(colours: NDArray[np.uint8], places: int) -> Images:
    """(n, 3) colours as square patches, row by row, on a grid with room for `places`."""
    across, side, _, _ = grid_of(places)
    grid = np.zeros((across * across, 3), np.uint8)
    grid[: len(colours)] = colours
    return np.repeat(np.repeat(grid.reshape(across, across, 3), side, axis=0), side, axis=1)


def grid_of(places: int) -> tuple[int, int, int, int]:
    """Patches a side, pixels of a patch, height and width."""
    across = math.ceil(math.sqrt(places))
    side = max(2, SIDE // across)
    return across, side, across * side, across * side


def hue(i: int, n: int) -> tuple[int, int, int]:
    """Colour i of n, evenly around the circle from red, all of full strength."""
    third = 6 * i / max(n, 1)
    rgb = [min(1.0, max(0.0, abs((third + shift) % 6 - 3) - 1)) for shift in (0, 4, 2)]
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


def listed(names: Sequence[str]) -> str:
    """The first eight, quoted."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more


def wrong_shape(detail: str, hint: str) -> BadRequest:
    """The error of a record that does not fit."""
    return BadRequest(detail, code="wrong_shape", hint=hint)
