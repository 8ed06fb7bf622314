"""Reading tables of numbers from files: npy, csv and parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from salver.protocol.errors import SalverError

__all__ = ["read_table"]


def read_table(path: Path, *, called: str = "") -> np.ndarray[Any, Any]:
    """The rows of a table as an array [rows, ...]; nothing in the file is executed.

    csv is UTF-8 and may have a header line, told by a cell that is no number; an empty cell is
    NaN, and whole numbers stay whole. parquet needs the extra `parquet`. Raises
    INVALID_ARTIFACT for files that hold no table of numbers; they are `called` so there, by default
    by their names.
    """
    called = called or repr(path.name)
    if not path.is_file():
        raise SalverError("INVALID_ARTIFACT", f"there is no file {str(path)!r}", "check the path")
    readers = {".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise SalverError("INVALID_ARTIFACT", f"{called} is no table", f"use one of {', '.join(readers)}")
    try:
        table = reader(path)
    except (ValueError, TypeError, NotImplementedError, OSError, EOFError, csv.Error) as error:
        raise _no_table(called, str(error).replace(repr(str(path)), called)) from None
    if table.dtype.kind not in "biuf" or table.ndim == 0 or not len(table):
        raise _no_table(called, f"it holds {table.dtype} of shape {list(table.shape)}")
    return table.reshape(-1, 1) if table.ndim == 1 else table


def _no_table(called: str, why: str) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT", f"{called} is no table of numbers: {why}", "each row must have as many numbers"
    )


def _read_npy(path: Path) -> np.ndarray[Any, Any]:
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise TypeError("it is an archive of arrays")
    return loaded


def _read_csv(path: Path) -> np.ndarray[Any, Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    if rows and not all(_is_number(cell) for cell in rows[0]):
        rows = rows[1:]
    try:
        return np.array([[int(cell) for cell in row] for row in rows], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array([[float(cell or "nan") for cell in row] for row in rows])


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> np.ndarray[Any, Any]:
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError("UNSUPPORTED", "parquet files need pyarrow", "pip install 'salver[parquet]'") from None
    table = pyarrow.parquet.read_table(path)
    return np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)
