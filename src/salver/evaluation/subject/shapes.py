"""What a file of rows looks like: its columns, and the values of what is to be predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from salver.evaluation.subject.rows import Array, read_rows
from salver.protocol.errors import SalverError
from salver.registry.recommendation import MOST_COLUMNS, MOST_VALUES, Column, DataShape

__all__ = ["shape_of"]

_KINDS = {"b": "truth", "i": "number", "u": "number", "f": "number", "M": "time", "O": "text"}


def shape_of(path: Path, target: str = "") -> DataShape:
    """The shape of a csv, parquet or npy file. Raises as `read_rows`, and INVALID_SETTING for an unknown target."""
    rows = read_rows(path)
    if len(rows.columns) > MOST_COLUMNS:
        raise SalverError(
            "INVALID_ARTIFACT", f"{path.name!r} has {len(rows.columns)} columns", f"use at most {MOST_COLUMNS}"
        )
    columns = tuple(Column(name, _KINDS[column.dtype.kind]) for name, column in rows.columns.items())
    if not target:
        return DataShape(columns, digest=rows.digest)
    values, whole = _values(rows.column(target))
    return DataShape(columns, target, values, whole, rows.digest)


def _values(column: Array) -> tuple[tuple[str, ...], bool]:
    """The different values as text, none where they are too many, and whether all are whole numbers."""
    if column.dtype.kind == "O":
        present = sorted({value for value in column if value is not None})
        return (tuple(present) if len(present) <= MOST_VALUES else ()), False
    if column.dtype.kind == "M":
        return (), False
    numbers = np.unique(column[~np.isnan(column)] if column.dtype.kind == "f" else column)
    whole = column.dtype.kind != "f" or bool(np.all(numbers == np.floor(numbers)))
    if len(numbers) > MOST_VALUES:
        return (), whole
    return tuple(str(int(value)) if whole else repr(float(value)) for value in numbers), whole
