"""What people have in their hands as the datatype a model declares: unchanged, or refused.

An array has a type already, so it is converted only when every value stays what it was. Python
lists have none: their numbers are read as JSON numbers are, decimals rounded to the nearest
value of the model's floating-point type. Booleans and text are never numbers.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Final

import numpy as np

from salver.protocol.datatypes import DATATYPES, Datatype
from salver.protocol.errors import SalverError
from salver.protocol.tensor import MAX_RANK

__all__ = ["fit_datatype"]

_FAMILIES: Final = {
    "b": "booleans",
    "i": "numbers",
    "u": "numbers",
    "f": "numbers",
    "O": "text",
    "S": "text",
    "U": "text",
}
_WIDEST: Final = 8
"""Bytes of the integers that numpy calls safe to cast to doubles, although not all of them fit."""
_DISCARDED_BITS: Final = 16
"""BF16 is the upper half of an FP32."""


def fit_datatype(name: str, value: Any, datatype: str) -> np.ndarray[Any, Any]:
    """`value`, an array or (nested) list for the input `name`, as an array that `datatype` carries as it is.

    Raises WRONG_DATATYPE for another kind of value, INVALID_VALUE where values would change,
    WRONG_SHAPE for ragged lists; each with what to do. BF16 is answered as the `uint16` of its
    bits and taken as such too, or as floating-point values that it holds exactly.
    """
    kind = DATATYPES.get(datatype)
    if kind is None:
        raise SalverError("WRONG_DATATYPE", f"input {name!r} is declared {datatype!r}, which this client does not know")
    if isinstance(value, list | tuple | bool | int | float | str | bytes):
        return _from_python(name, value, kind)
    array = np.asarray(value)
    if array.dtype == kind.dtype:
        return array
    wanted, found = _FAMILIES[kind.dtype.kind], _FAMILIES.get(array.dtype.kind)
    if found != wanted:
        raise SalverError(
            "WRONG_DATATYPE",
            f"input {name!r} is {array.dtype}; the model takes {datatype}, which is {wanted}",
            f"pass an array of {wanted}",
        )
    if wanted == "text":
        return array
    if kind.name == "BF16":
        return _bf16_bits(name, array)
    return _cast(name, array, kind)


def _cast(name: str, array: np.ndarray[Any, Any], kind: Datatype) -> np.ndarray[Any, Any]:
    wide = array.dtype.kind in "iu" and array.dtype.itemsize == kind.dtype.itemsize == _WIDEST
    if np.can_cast(array.dtype, kind.dtype, "safe") and not wide:
        return array.astype(kind.dtype)
    with np.errstate(all="ignore"):
        converted = array.astype(kind.dtype)
        unchanged = _unchanged(array, converted)
    if not unchanged.all():
        culprit = array[~unchanged].reshape(-1)[0]
        raise SalverError(
            "INVALID_VALUE",
            f"input {name!r} is {array.dtype}; {kind.name} cannot hold its value {culprit!s} exactly",
            _remedy(culprit, kind),
        )
    return converted


def _remedy(culprit: Any, kind: Datatype) -> str:
    """What to do about a value that does not fit. A cast would make some number of what is none."""
    if culprit.dtype.kind == "f" and not np.isfinite(culprit) and kind.dtype.kind in "iu":
        if np.isnan(culprit):
            return "it is a missing value, which integers cannot say: fill it, or drop the row"
        return "it is infinite, which integers cannot say: drop the row, or write the bound that it stands for"
    return f"if the loss is meant, say so: array.astype(numpy.{kind.dtype.name})"


def _unchanged(array: np.ndarray[Any, Any], converted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Where converting back gives the same value.

    Beyond the range of an integer type a cast back proves nothing (it may saturate to the
    value it came from), so between integers and floats the range is checked as well, against
    powers of two that every double holds.
    """
    back = converted.astype(array.dtype)
    same: np.ndarray[Any, Any] = np.asarray((back == array) | ((array != array) & (back != back)))  # noqa: PLR0124 - NaN
    for whole, other in ((array, converted), (converted, array)):
        if whole.dtype.kind in "iu":
            limits = np.iinfo(whole.dtype)
            if other.dtype.kind == "f":
                real = other.astype(np.float64)
                same = same & (real >= float(limits.min)) & (real < 2.0 ** (limits.bits - (whole.dtype.kind == "i")))
            else:
                same = same & (np.sign(other) == np.sign(whole))
    return same


def _bf16_bits(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind != "f":
        raise SalverError(
            "WRONG_DATATYPE",
            f"input {name!r} is {array.dtype}; the model takes BF16",
            "pass the uint16 of the bits, or floating-point values that BF16 holds exactly",
        )
    bits = _cast(name, array, DATATYPES["FP32"]).view(np.uint32)
    if (bits & (2**_DISCARDED_BITS - 1)).any():
        raise SalverError(
            "INVALID_VALUE",
            f"input {name!r} holds values that BF16 cannot hold exactly",
            "round them first and pass the uint16 of the bits",
        )
    return (bits >> _DISCARDED_BITS).astype(np.uint16)


def _from_python(name: str, value: object, kind: Datatype) -> np.ndarray[Any, Any]:
    try:
        objects = np.array(value, dtype=object)
    except ValueError:
        raise _ragged(name) from None
    if objects.ndim > MAX_RANK:
        raise SalverError("WRONG_SHAPE", f"the lists of input {name!r} are nested more than {MAX_RANK} deep")
    wanted = _FAMILIES[kind.dtype.kind]
    for item in {type(item): item for item in objects.flat}.values():
        if isinstance(item, list | tuple):
            raise _ragged(name)
        if not _belongs(item, wanted):
            raise SalverError(
                "WRONG_DATATYPE",
                f"input {name!r} holds {str(item)[:80]!r} ({type(item).__name__}); the model takes {kind.name}",
                f"pass {wanted} only",
            )
    if wanted == "text":
        return objects
    if kind.name == "BF16":
        return _bf16_bits(name, objects.astype(np.float64))
    return _numbers(name, objects, kind)


def _numbers(name: str, objects: np.ndarray[Any, Any], kind: Datatype) -> np.ndarray[Any, Any]:
    if kind.dtype.kind in "iu":
        limits = np.iinfo(kind.dtype)
        for item in objects.flat:
            if item != item // 1 or not limits.min <= item <= limits.max:
                raise SalverError("INVALID_VALUE", f"input {name!r} holds {item!s}, which {kind.name} cannot")
        return objects.astype(kind.dtype)
    try:
        with np.errstate(over="raise"):
            # By way of doubles, as a JSON reader does: numpy reads objects no other way.
            return objects.astype(np.float64).astype(kind.dtype)
    except (OverflowError, FloatingPointError):
        raise SalverError(
            "INVALID_VALUE", f"input {name!r} holds a value beyond the range of {kind.name}", "scale the values"
        ) from None


def _belongs(item: object, wanted: str) -> bool:
    if isinstance(item, bool | np.bool_):
        return wanted == "booleans"
    if wanted == "numbers":
        return isinstance(item, Real | Integral)
    return wanted == "text" and isinstance(item, str | bytes)


def _ragged(name: str) -> SalverError:
    return SalverError(
        "WRONG_SHAPE", f"the lists of input {name!r} differ in length", "give every row the same number of elements"
    )
