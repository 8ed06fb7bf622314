"""The datatypes of the Open Inference Protocol and what each is in numpy and on the wire.

BF16 has no numpy type: its values travel as the `uint16` of their bits and only in binary.
BYTES is a sequence of byte strings of any length, a numpy object array of `bytes`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

__all__ = ["DATATYPES", "Datatype", "datatype_of"]


class Datatype(NamedTuple):
    """One datatype: numpy type, bytes per element, `struct` code, Python type in JSON."""

    name: str
    dtype: np.dtype[Any]
    itemsize: int
    """Bytes per element; 0 for BYTES, whose elements differ in length."""
    struct_code: str
    """The `struct` format character, or "" where JSON cannot carry the type."""
    json_type: type | None
    """What a JSON element must be, exactly; None where JSON cannot carry the type."""
    triton: str
    """The name in Triton's model configuration."""


def _datatype(name: str, numpy_name: str, code: str, json_type: type | None, triton: str) -> Datatype:
    dtype = np.dtype(numpy_name)
    itemsize = 0 if dtype.kind == "O" else dtype.itemsize
    return Datatype(name, dtype, itemsize, code, json_type, triton)


DATATYPES: Final[dict[str, Datatype]] = {
    row.name: row
    for row in (
        _datatype("BOOL", "?", "?", bool, "TYPE_BOOL"),
        _datatype("UINT8", "<u1", "B", int, "TYPE_UINT8"),
        _datatype("UINT16", "<u2", "H", int, "TYPE_UINT16"),
        _datatype("UINT32", "<u4", "I", int, "TYPE_UINT32"),
        _datatype("UINT64", "<u8", "Q", int, "TYPE_UINT64"),
        _datatype("INT8", "<i1", "b", int, "TYPE_INT8"),
        _datatype("INT16", "<i2", "h", int, "TYPE_INT16"),
        _datatype("INT32", "<i4", "i", int, "TYPE_INT32"),
        _datatype("INT64", "<i8", "q", int, "TYPE_INT64"),
        _datatype("FP16", "<f2", "", None, "TYPE_FP16"),
        _datatype("BF16", "<u2", "", None, "TYPE_BF16"),
        _datatype("FP32", "<f4", "f", float, "TYPE_FP32"),
        _datatype("FP64", "<f8", "d", float, "TYPE_FP64"),
        _datatype("BYTES", "O", "", str, "TYPE_STRING"),
    )
}

_BY_DTYPE: Final = {row.dtype: row.name for row in DATATYPES.values() if row.name != "BF16"}


def datatype_of(array: np.ndarray[Any, Any]) -> str | None:
    """The datatype that holds `array` without any conversion, or None.

    Object arrays and arrays of strings or byte strings are BYTES.
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    return _BY_DTYPE.get(array.dtype.newbyteorder("<"))
