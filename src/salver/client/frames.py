"""Data frames of pandas, in and out. Only who passes one, or asks for one, needs pandas.

This is the one file that knows pandas. It never imports it to look at what it is given: who has a
frame has imported pandas already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from salver.protocol.conversion import fit_datatype
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec

__all__ = ["by_column", "is_frame", "rows_of_frame", "to_frame"]


def is_frame(value: Any) -> bool:
    """Whether `value` is a DataFrame of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, "DataFrame", ()))


def rows_of_frame(frame: Any) -> tuple[int, int]:
    """The rows of a frame, at least 1, and about the bytes of one."""
    rows = len(frame)
    return (rows, int(frame.memory_usage(index=False).sum()) // rows) if rows else (1, 0)


def by_column(endpoint: str, frame: Any, declared: Sequence[TensorSpec]) -> dict[str, Any]:
    """The inputs that a frame holds.

    The one matrix that a model takes is made of all columns, in their order; else each column is
    the input of its name. Each column is converted by itself, so that no number of one changes
    for the sake of another.
    """
    if len(declared) == 1 and len(declared[0].shape) == 2:
        spec = declared[0]
        if spec.shape[1] not in (-1, frame.shape[1]):
            raise SalverError(
                "WRONG_SHAPE",
                f"the frame has {frame.shape[1]} columns; endpoint {endpoint!r} takes {spec.shape[1]}",
                "select the columns that the model was trained with, in their order: frame[[...]]",
            )
        return {spec.name: _matrix(frame, spec.datatype)}
    wide = [spec.name for spec in declared if len(spec.shape) > 2 or spec.shape[1:] not in ((), (1,), (-1,))]
    if wide:
        raise SalverError(
            "WRONG_SHAPE",
            f"a frame has no column for input {wide[0]!r} of endpoint {endpoint!r}, which has several values a row",
            "pass a mapping of arrays",
        )
    specs = {spec.name: spec for spec in declared}
    inputs = {}
    for at, label in enumerate(frame.columns):
        name = str(label)
        column = _values(name, frame.iloc[:, at])
        inputs[name] = column.reshape(-1, 1) if name in specs and len(specs[name].shape) > 1 else column
    if len(inputs) != frame.shape[1]:
        raise SalverError("UNKNOWN_INPUT", "two columns of the frame have one name", "give each its own")
    return inputs


def _matrix(frame: Any, datatype: str) -> np.ndarray[Any, Any]:
    kind = DATATYPES.get(datatype)
    made: np.ndarray[Any, Any] = np.empty(frame.shape, object if kind is None else kind.dtype)
    for at, label in enumerate(frame.columns):
        name = str(label)
        made[:, at] = fit_datatype(name, _values(name, frame.iloc[:, at]), datatype)
    return made


def _values(name: str, column: Any) -> np.ndarray[Any, Any]:
    """A column as numpy has it; missing values are refused, other than the NaN of numpy's own floats."""
    values: np.ndarray[Any, Any] = column.to_numpy()
    if column.hasnans and not (isinstance(column.dtype, np.dtype) and values.dtype.kind == "f"):
        raise SalverError(
            "INVALID_VALUE", f"column {name!r} has missing values", "fill them, or drop the rows: frame.fillna(...)"
        )
    if values.dtype.kind == "O" and getattr(column.dtype, "kind", "O") in "iufb":
        # Numbers that may be missing are objects to numpy, and none of these is missing.
        values = values.astype(column.dtype.numpy_dtype)
    return values


def to_frame(arrays: Mapping[str, np.ndarray[Any, Any]], index: Any = None) -> Any:
    """Outputs as the columns of a frame; see `Prediction.to_pandas`."""
    try:
        import pandas as pd  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError(
            "UNSUPPORTED", "pandas is not installed", "install the extra: pip install 'salver[pandas]'"
        ) from None
    columns: dict[str, Any] = {}
    for name, array in arrays.items():
        rows = len(array) if array.ndim else -1
        if array.ndim not in (1, 2) or (index is not None and len(index) != rows):
            raise SalverError(
                "WRONG_SHAPE",
                f"output {name!r} has shape {list(array.shape)}, which is not one line of a table for each row",
                "take the array itself: prediction[NAME]",
            )
        text = _as_text(array) if array.dtype.kind == "O" else array
        if array.ndim == 1 or array.shape[1] == 1:
            columns[name] = text.reshape(-1)
        else:
            columns |= {f"{name}_{at}": text[:, at] for at in range(array.shape[1])}
    if len({len(column) for column in columns.values()}) > 1:
        raise SalverError("WRONG_SHAPE", "the outputs differ in length", "take the arrays themselves: prediction[NAME]")
    return pd.DataFrame(columns, index=index)


def _as_text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bytes as the text they are, if all of them are text."""
    try:
        return np.array([item.decode() for item in array.reshape(-1)], object).reshape(array.shape)
    except UnicodeDecodeError:
        return array
