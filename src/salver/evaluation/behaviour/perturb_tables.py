"""Changes of columns of numbers and of categories, each the same for one seed.

Each is a function of one column, of what is asked and of a stream of random numbers, and gives the column as it
is after the change. An integer stays one: half a child is no measurement error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from salver.evaluation.subject.predictions import class_name
from salver.evaluation.subject.rows import Array, Rows

__all__ = ["TABLE_CHANGES", "Change", "Spread", "missing_cells", "noisy", "quantised", "spreads_of"]


@dataclass(frozen=True)
class Spread:
    """How far the values of a column lie apart."""

    deviation: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """What a generator is asked to do."""

    amount: float
    values: tuple[Any, ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    spread: Spread = Spread(0.0, 0.0, 0.0)
    """Of the column that is changed; all zero for text."""


def spreads_of(rows: Rows, columns: tuple[str, ...]) -> dict[str, Spread]:
    """Standard deviation and range of the numbers in each column, missing ones left out; of text all zero."""
    found = {}
    for name in columns:
        column = rows.column(name)
        numbers = column[np.isfinite(column)].astype(np.float64) if column.dtype.kind in "biuf" else np.empty(0)
        found[name] = (
            Spread(float(numbers.std()), float(numbers.min()), float(numbers.max()))
            if numbers.size
            else Spread(0.0, 0.0, 0.0)
        )
    return found


def _like(column: Array, changed: Array) -> Array:
    """The changed numbers, whole where the column has whole numbers."""
    return np.rint(changed).astype(column.dtype) if column.dtype.kind in "iu" else changed


def noisy(column: Array, change: Change, rng: np.random.Generator) -> Array:
    """Normal noise of `amount` standard deviations of the column."""
    return _like(column, column + rng.normal(0.0, change.amount * change.spread.deviation, len(column)))


def quantised(column: Array, change: Change, _: np.random.Generator) -> Array:
    """Rounded to steps of `amount` standard deviations of the column."""
    step = change.amount * change.spread.deviation
    return _like(column, np.rint(column / step) * step) if step > 0 else column


def missing_cells(column: Array, change: Change, rng: np.random.Generator) -> Array:
    """A share `amount` of the cells emptied."""
    emptied = rng.random(len(column)) < change.amount
    if column.dtype.kind == "O":
        left = column.copy()
        left[emptied] = None
        return left
    if not emptied.any():
        return column
    return np.where(emptied, np.nan, column.astype(np.float64))


def _scaled(column: Array, change: Change, _: np.random.Generator) -> Array:
    return column * change.amount


def _added(column: Array, change: Change, _: np.random.Generator) -> Array:
    return column + (int(change.amount) if float(change.amount).is_integer() else change.amount)


def _shifted(column: Array, change: Change, _: np.random.Generator) -> Array:
    return _like(column, column + change.amount * change.spread.deviation)


def _permuted(column: Array, _: Change, rng: np.random.Generator) -> Array:
    return rng.permutation(column)


def _beyond(column: Array, change: Change, rng: np.random.Generator) -> Array:
    """Below the lowest or above the highest value by `amount` times the range."""
    low, high = change.spread.low, change.spread.high
    beyond = change.amount * max(high - low, 1.0)
    return _like(column, np.where(rng.random(len(column)) < 0.5, low - beyond, high + beyond))


def _swapped(column: Array, change: Change, _: np.random.Generator) -> Array:
    """Each of the `values` replaced by the next, the last by the first; others stay."""
    follows = {
        class_name(value): change.values[(index + 1) % len(change.values)] for index, value in enumerate(change.values)
    }
    swapped = [follows.get(class_name(value), value) for value in column]
    if column.dtype.kind == "O":
        changed = np.empty(len(column), dtype=object)
        changed[:] = swapped
        return changed
    return np.array(swapped, dtype=np.result_type(column.dtype, np.array(change.values).dtype))


TABLE_CHANGES: Final[Mapping[str, Callable[[Array, Change, np.random.Generator], Array]]] = {
    "scale": _scaled,
    "add": _added,
    "shift": _shifted,
    "permute": _permuted,
    "swap": _swapped,
    "missing": missing_cells,
    "noise": noisy,
    "quantised": quantised,
    "out_of_range": _beyond,
}
