"""How far the values of a column lie from those of a reference, and whether that is chance.

Numbers by the population stability index over the reference's quantiles, categories by chi-square and the same
index. An index alone cries wolf on few rows, and a p-value on many; so a column counts as drifted only where both
speak, the p-values adjusted for all columns (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.subject.rows import Array, Rows
from salver.stats.distance import category_counts, chi_square, population_stability, psi, psi_threshold
from salver.stats.multiplicity import holm

__all__ = ["ColumnDrift", "column_drifts", "kind_of"]

_FEW_VALUES: Final = 20
_MOST_CATEGORIES: Final = 50
_FREE_RATIO: Final = 0.5
"""Different values by rows, from which on text is no category: a name, an identifier, a sentence."""


@dataclass(frozen=True)
class ColumnDrift:
    """One column beside the reference."""

    column: str
    kind: str
    """`numbers`, `categories` or `text`, which is not compared."""
    psi: float = 0.0
    threshold: float = 0.0
    """What the index of two samples without drift stays below with probability 0.95."""
    p_value: float = 1.0
    adjusted_p: float = 1.0
    values: int = 0
    reference_values: int = 0
    """How many different ones."""
    unseen: int = 0
    """Rows whose category the reference does not have."""
    rows: int = 0
    reference_kind: str = ""

    def is_drifted(self, psi_at_most: float, level: float) -> bool:
        """Whether it differs by as much as matters, beyond chance."""
        return self.adjusted_p <= level and self.psi > max(psi_at_most, self.threshold)


def kind_of(column: Array) -> str:
    """What a column is compared as."""
    if column.dtype.kind in "iuf":
        present = column[np.isfinite(column.astype(np.float64))]
        return "numbers" if len(np.unique(present)) > _FEW_VALUES else "categories"
    if column.dtype.kind == "b":
        return "categories"
    if column.dtype.kind == "M":
        return "text"  # a later time is no drift
    different = len({value for value in column if value is not None})
    return "text" if different > _MOST_CATEGORIES and different > _FREE_RATIO * len(column) else "categories"


def column_drifts(rows: Rows, reference: Rows, columns: Sequence[str]) -> list[ColumnDrift]:
    """Every column that both have, compared; p-values adjusted for all of them."""
    found = [
        _compared(name, rows.column(name), reference.column(name)) for name in columns if name in reference.columns
    ]
    tested = [each for each in found if each.kind != "text" and each.kind == each.reference_kind]
    adjusted = holm([each.p_value for each in tested]) if tested else ()
    by_name: Mapping[str, float] = dict(zip((each.column for each in tested), adjusted, strict=True))
    return [ColumnDrift(**{**vars(each), "adjusted_p": by_name.get(each.column, 1.0)}) for each in found]


def _compared(name: str, now: Array, before: Array) -> ColumnDrift:
    kind, was = kind_of(now), kind_of(before)
    if {kind, was} == {"numbers", "categories"} and now.dtype.kind in "iuf" and before.dtype.kind in "iuf":
        kind = was  # few rows of a column of numbers have few values
    counts = {"values": _different(now), "reference_values": _different(before), "rows": len(now)}
    if kind == was == "numbers":
        one, other = _present(before), _present(now)
        if len(one) > 1 and len(other) and one.min() < one.max():
            found = population_stability(one, other)
            return ColumnDrift(name, kind, found.psi, found.threshold, found.p_value, reference_kind=was, **counts)
    if kind == was and kind != "text" and (now.dtype.kind == "O") == (before.dtype.kind == "O"):
        return _categories(name, now, before, counts)
    return ColumnDrift(name, kind, reference_kind=was, **counts)


def _categories(name: str, now: Array, before: Array, counts: dict[str, int]) -> ColumnDrift:
    one, other = _shown(before), _shown(now)
    if not len(one) or not len(other):
        return ColumnDrift(name, "categories", reference_kind="categories", **counts)
    _, first, second = category_counts(one, other)
    unseen = int(second[first == 0].sum())
    if len(first) < 2:
        return ColumnDrift(name, "categories", reference_kind="categories", **counts)
    smoothing = 0.5 if min(first.min(), second.min()) == 0 else 0.0
    return ColumnDrift(
        name,
        "categories",
        psi(first, second, smoothing=smoothing),
        psi_threshold(len(first), len(one), len(other)),
        chi_square(first, second).p_value,
        unseen=unseen,
        reference_kind="categories",
        **counts,
    )


def _present(column: Array) -> Array:
    numbers = column.astype(np.float64)
    return numbers[np.isfinite(numbers)]


def _shown(column: Array) -> Array:
    if column.dtype.kind == "f":
        return column[np.isfinite(column)].astype(str)
    return np.array([str(value) for value in column if value is not None], dtype=str)


def _different(column: Array) -> int:
    return len(np.unique(_shown(column)))
