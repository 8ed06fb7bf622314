"""How much a protobuf message would make of its bytes: a look at its fields before it is parsed.

A field of two bytes becomes an object of a hundred. What is honest has few of them, however large
it is: tensors stand in one field each, raw or as a packed list of values.
"""

from __future__ import annotations

from typing import Final

from salver.protocol.errors import SalverError
from salver.protocol.tensor import MAX_RANK

__all__ = ["check_fields"]

_UNSEEN_BYTES: Final = 64 * 2**10
"""What is no larger becomes some megabytes at most."""
_MOST_FIELDS: Final = 2**14
_INPUTS: Final = 5
_OUTPUTS: Final = 6
_SHAPE: Final = 3
_VARINT: Final = 0
_BYTES: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
"""By wire type; what begins or ends a group has no content of its own."""
_LONGEST_VARINT: Final = 10


def check_fields(data: bytes) -> None:
    """Raise BAD_MESSAGE for a ModelInferRequest of more fields than any has; one that is none passes."""
    if len(data) <= _UNSEEN_BYTES:
        return
    fields = _fields(data, 0, len(data), _MOST_FIELDS)
    left = _MOST_FIELDS - len(fields)
    for field, begin, end in fields:
        if field not in (_INPUTS, _OUTPUTS):
            continue
        of_tensor = _fields(data, begin, end, left)
        left -= len(of_tensor)
        for number, start, stop in of_tensor:
            if number == _SHAPE and stop - start > MAX_RANK * _LONGEST_VARINT:
                raise SalverError("BAD_MESSAGE", f"the shape of a tensor takes {stop - start} bytes; no shape does")


def _fields(data: bytes, at: int, end: int, most: int) -> list[tuple[int, int, int]]:
    """The number of each field, and from where to where its content stands; up to where it is no protobuf."""
    found: list[tuple[int, int, int]] = []
    while at < end:
        if len(found) >= most:
            raise SalverError(
                "BAD_MESSAGE", f"the message has more than {_MOST_FIELDS} fields", "pack the values of a tensor in one"
            )
        tag, at = _varint(data, at)
        kind, begin = tag & 7, at
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _BYTES:
            size, begin = _varint(data, at)
            at = begin + size
        else:
            at += _FIXED_SIZES.get(kind, 0)
        if at > end:
            break
        found.append((tag >> 3, begin, at))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in base 128, and where it ends; beyond the data where it does not."""
    number = 0
    for digit in range(_LONGEST_VARINT):
        if at + digit >= len(data):
            break
        byte = data[at + digit]
        number |= (byte & 0x7F) << (7 * digit)
        if byte < 0x80:
            return number, at + digit + 1
    return 0, len(data) + 1
