"""What a table says of itself: types, what is missing, ranges, quantiles, categories, balance, duplicates.

Of text only values that many rows share are named: a column in which they all differ may be people's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

__all__ = ["Array", "ColumnFacts", "TableFacts", "measure_table"]

Array = np.ndarray[Any, Any]

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_CATEGORIES: Final = 20
_FEWEST_SHARED: Final = 5
"""Rows that share a value which is named, at least."""
_KINDS: Final = {"f": "number", "i": "whole number", "u": "whole number", "b": "truth value", "M": "time"}


class ColumnFacts(msgspec.Struct, frozen=True):
    """One column. Numbers have a range and quantiles, columns of few values their counts."""

    name: str
    kind: str
    missing: int
    distinct: int
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    categories: tuple[tuple[str, int], ...] = ()
    """The commonest values with their rows; none where rows hardly share any."""


class TableFacts(msgspec.Struct, frozen=True):
    """A whole table."""

    name: str
    digest: str
    rows: int
    duplicates: int
    """Rows that are in every column like one before them."""
    columns: tuple[ColumnFacts, ...]
    target: str = ""

    def column(self, name: str) -> ColumnFacts | None:
        """The facts of one column."""
        return next((each for each in self.columns if each.name == name), None)


def measure_table(columns: Mapping[str, Array], name: str, digest: str, target: str = "") -> TableFacts:
    """Measure columns of one length: numbers, times, or text as objects in which None is missing."""
    rows = len(next(iter(columns.values()), ()))
    codes = {key: _codes(column) for key, column in columns.items()}
    facts = tuple(_column(key, column, *codes[key]) for key, column in columns.items())
    stacked = np.stack([code for code, _ in codes.values()], axis=1) if codes else np.empty((0, 0))
    return TableFacts(name, digest, rows, rows - len(np.unique(stacked, axis=0)), facts, target)


def _codes(column: Array) -> tuple[Array, Array]:
    """A number for each distinct value, and the values as they are shown; a missing one is a value too."""
    if column.dtype.kind == "O":
        column = np.array(["\0" if value is None else str(value) for value in column], dtype=str)
    values, codes = np.unique(column, return_inverse=True)
    return codes.astype(np.int32), values


def _missing(column: Array) -> Array:
    if column.dtype.kind == "O":
        return np.array([value is None for value in column], dtype=bool)
    if column.dtype.kind == "M":
        return np.isnat(column)
    return np.isnan(column) if column.dtype.kind == "f" else np.zeros(len(column), dtype=bool)


def _column(name: str, column: Array, codes: Array, values: Array) -> ColumnFacts:
    missing = _missing(column)
    present = ~missing
    distinct = len(np.unique(codes[present]))
    kind = _KINDS.get(column.dtype.kind, "text")
    facts = ColumnFacts(name, kind, int(missing.sum()), distinct)
    if kind in ("number", "whole number") and present.any():
        numbers = column[present].astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            facts = msgspec.structs.replace(
                facts,
                low=float(finite.min()),
                high=float(finite.max()),
                mean=float(finite.mean()),
                std=float(finite.std()),
                quantiles=tuple(np.quantile(finite, QUANTILES).tolist()),
            )
    if distinct <= _MOST_CATEGORIES and kind != "time":
        facts = msgspec.structs.replace(facts, categories=_categories(codes[present], values, kind))
    return facts


def _categories(codes: Array, values: Array, kind: str) -> tuple[tuple[str, int], ...]:
    counts = np.bincount(codes, minlength=len(values))
    order = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
    shared = [index for index in order if counts[index] >= _FEWEST_SHARED]
    return tuple((_shown(values[index], kind), int(counts[index])) for index in shared)


def _shown(value: Any, kind: str) -> str:
    return f"{value:g}" if kind in ("number", "whole number") else str(value)
