"""Cutting rows into slices: by the values of a column, by ranges, by quantile bins.

A column becomes *cells*, one number for each row, and the name of each cell. How it is cut depends on the
column alone, never on how well a version does there, or a search for bad slices would choose its own bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.subject.predictions import class_name
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.suites.suite import WhereSettings
from salver.protocol.errors import SalverError

__all__ = ["Cells", "cut_column", "select_rows"]

_MOST_VALUES: Final = 50
"""Values of a column that are slices of their own; the rarer ones are in none."""


@dataclass(frozen=True)
class Cells:
    """Columns cut up: `codes` has the cell of each row, -1 for none."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    codes: Array
    parents: tuple[tuple[str, ...], ...] = ()
    """Of cells of two columns: the cells of one that each is the meeting of."""

    def crossed(self, other: Cells) -> Cells:
        """The meetings of these cells with those of another column."""
        parents = tuple((first, second) for first in self.names for second in other.names)
        codes = np.where((self.codes < 0) | (other.codes < 0), -1, self.codes * len(other.names) + other.codes)
        names = tuple(" and ".join(pair) for pair in parents)
        return Cells((*self.columns, *other.columns), names, codes, parents)


def cut_column(rows: Rows, column: str, bins: int) -> Cells:
    """Cut a column: numbers of more than `bins` different values into quantile bins, others by value."""
    values = rows.column(column)
    if values.dtype.kind == "M":
        values = values.astype(np.int64).astype(np.float64)
    elif not rows.is_numeric(column):
        return _by_value(column, np.array([_shown(value) for value in values], dtype=str))
    numbers = values.astype(np.float64)
    known = np.unique(numbers[np.isfinite(numbers)])
    if len(known) <= bins:
        return _by_value(column, np.array([_shown(value) for value in numbers], dtype=str))
    return _by_quantile(column, numbers, bins)


def _shown(value: object) -> str:
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return "missing" if missing else class_name(value)


def _by_value(column: str, values: Array) -> Cells:
    names, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    frequent = np.sort(np.argsort(-counts, kind="stable")[:_MOST_VALUES])
    place = np.full(len(names), -1)
    place[frequent] = np.arange(len(frequent))
    return Cells((column,), tuple(f"{column} = {names[index]}" for index in frequent), place[codes])


def _by_quantile(column: str, numbers: Array, bins: int) -> Cells:
    """Bins of about as many rows each; a missing number is in a cell of its own."""
    present = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[present], np.linspace(0, 1, bins + 1)[1:-1]))
    codes = np.searchsorted(edges, numbers, side="right")
    names = [f"{column} < {edges[0]:.4g}"]
    names += [f"{low:.4g} <= {column} < {high:.4g}" for low, high in itertools.pairwise(edges)]
    names.append(f"{column} >= {edges[-1]:.4g}")
    if not present.all():
        codes[~present] = len(names)
        names.append(f"{column} = missing")
    return Cells((column,), tuple(names), codes)


def select_rows(rows: Rows, where: Sequence[WhereSettings]) -> list[Array]:
    """Which rows each declared slice has; raises INVALID_SETTING for an unknown column or a range of text."""
    return [_selected(rows, each) for each in where]


def _selected(rows: Rows, where: WhereSettings) -> Array:
    if where.equals is not None:
        wanted = class_name(where.equals)
        return np.array([_shown(value) == wanted for value in rows.column(where.column)])
    if not rows.is_numeric(where.column):
        raise SalverError(
            "INVALID_SETTING", f"slice {where.name!r} is a range of {where.column!r}, which holds no numbers", "equals"
        )
    numbers = rows.numbers(where.column)
    low = -np.inf if where.at_least is None else where.at_least
    high = np.inf if where.below is None else where.below
    return (numbers >= low) & (numbers < high)
