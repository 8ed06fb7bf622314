"""Reading tables of numbers from files: npy, csv and parquet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.protocol.errors import SalverError

__all__ = ["load_npy", "load_parquet", "read_table", "require_table"]

_SUFFIXES: Final = (".csv", ".parquet", ".npy")


def read_table(path: Path, *, called: str = "") -> np.ndarray[Any, Any]:
    """The rows of a table as an array [rows, ...]; nothing in the file is executed.

    csv is UTF-8 and may have a header line, told by a cell that is no number; an empty cell is
    NaN, and whole numbers stay whole. parquet needs the extra `parquet`. Raises
    INVALID_ARTIFACT for files that hold no table of numbers; they are `called` so there, by default
    by their names.
    """
    called = called or repr(path.name)
    require_table(path, called)
    readers = {".npy": load_npy, ".csv": _read_csv, ".parquet": _read_parquet}
    try:
        table = readers[path.suffix](path)
    except (ValueError, TypeError, NotImplementedError, OSError, EOFError, csv.Error) as error:
        raise _no_table(called, str(error).replace(repr(str(path)), called)) from None
    if table.dtype.kind not in "biuf" or table.ndim == 0 or not len(table):
        raise _no_table(called, f"it holds {table.dtype} of shape {list(table.shape)}")
    return table.reshape(-1, 1) if table.ndim == 1 else table


def require_table(path: Path, called: str) -> None:
    """Raise INVALID_ARTIFACT for what is no file, or none that is named as a table is."""
    if not path.is_file():
        raise SalverError("INVALID_ARTIFACT", f"there is no file {str(path)!r}", "check the path")
    if path.suffix not in _SUFFIXES:
        raise SalverError("INVALID_ARTIFACT", f"{called} is no table", f"use one of {', '.join(_SUFFIXES)}")


def load_npy(path: Path) -> np.ndarray[Any, Any]:
    """The array of an npy file; raises ValueError, TypeError, OSError or EOFError for what is none."""
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise TypeError("it is an archive of arrays")
    return loaded


def load_parquet(path: Path) -> Any:
    """The table of pyarrow that a parquet file holds; raises UNSUPPORTED without the extra, ValueError or OSError."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError("UNSUPPORTED", "parquet files need pyarrow", "pip install 'salver[parquet]'") from None
    return pyarrow.parquet.read_table(path)


def _no_table(called: str, why: str) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT", f"{called} is no table of numbers: {why}", "each row must have as many numbers"
    )


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
    return np.column_stack([column.to_numpy() for column in load_parquet(path).columns]).astype(np.float64)
