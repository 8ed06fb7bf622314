"""One tensor as it crosses a boundary: name, datatype, shape and little-endian bytes.

Numbers stay bytes from the moment a request is decoded until a batch is formed: joining the
bytes of sixty requests and viewing them once as an array costs a fraction of building sixty
arrays. Binary tensors, worker frames and batches share this one form.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np

from salver.protocol.datatypes import DATATYPES, datatype_of
from salver.protocol.errors import SalverError

__all__ = ["MAX_RANK", "Tensor", "bytes_element", "check_shape", "pack_bytes_elements", "unpack_bytes_elements"]

MAX_RANK = 16
_LENGTH = struct.Struct("<I")


class Tensor(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A named tensor: `data` holds `prod(shape)` elements, row-major, little-endian.

    BYTES elements are each a 4-byte little-endian length and that many bytes. Construction
    checks nothing; what comes from outside goes through the codecs, which do.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The tensor as a read-only array of its shape; BYTES as an object array of bytes."""
        if self.datatype == "BYTES":
            elements = unpack_bytes_elements(self.data, self.size, self.name)
            array = np.empty(len(elements), dtype=object)
            array[:] = elements
            return array.reshape(self.shape)
        return np.frombuffer(self.data, dtype=DATATYPES[self.datatype].dtype).reshape(self.shape)

    @classmethod
    def from_numpy(cls, name: str, array: np.ndarray[Any, Any]) -> Tensor:
        """The tensor that holds `array`; raises WRONG_DATATYPE for types the protocol lacks."""
        datatype = datatype_of(array)
        if datatype is None:
            raise SalverError(
                "WRONG_DATATYPE",
                f"tensor {name!r} has numpy type {array.dtype}, which the protocol cannot carry",
                f"convert it to one of {', '.join(DATATYPES)}",
            )
        if datatype == "BYTES":
            try:
                data = pack_bytes_elements([bytes_element(item) for item in array.reshape(-1)])
            except (TypeError, ValueError) as error:
                raise SalverError("WRONG_DATATYPE", f"tensor {name!r} holds no text or bytes: {error}") from None
        else:
            data = np.ascontiguousarray(array, dtype=DATATYPES[datatype].dtype).tobytes()
        return cls(name, datatype, array.shape, data)


def bytes_element(element: object) -> bytes:
    """One element of a BYTES tensor; TypeError for what is no text or bytes, ValueError for lone surrogates."""
    if isinstance(element, bytes):
        return element
    if isinstance(element, str):
        return element.encode()
    raise TypeError(f"an element is a {type(element).__name__}")


def check_shape(name: str, shape: Sequence[int], max_elements: int) -> int:
    """Return the number of elements of `shape`; raise INVALID_TENSOR for an impossible one.

    Python integers do not overflow, so a product that would wrap in C is seen for what it is.
    """
    if len(shape) > MAX_RANK:
        raise SalverError("INVALID_TENSOR", f"input {name!r} has rank {len(shape)}; at most {MAX_RANK} is allowed")
    size = 1
    for dimension in shape:
        if not 0 <= dimension <= max_elements:
            raise SalverError(
                "INVALID_TENSOR",
                f"input {name!r} has the dimension {_shortened(dimension)}; it may be 0 to {max_elements}",
            )
        size *= dimension
    if size > max_elements:
        raise SalverError(
            "INVALID_TENSOR",
            f"input {name!r} of shape {list(shape)} has {size} elements; at most {max_elements} are allowed",
        )
    return size


def _shortened(number: int) -> str:
    # Writing a number of thousands of digits costs time, and more than 4300 are refused by Python.
    sign = "-" if number < 0 else ""
    return str(number) if number.bit_length() <= 64 else f"about {sign}2**{number.bit_length()}"


def pack_bytes_elements(elements: Sequence[bytes]) -> bytes:
    """Join byte strings, each behind its 4-byte little-endian length."""
    parts: list[bytes] = []
    for element in elements:
        parts.append(_LENGTH.pack(len(element)))
        parts.append(element)
    return b"".join(parts)


def unpack_bytes_elements(data: bytes | memoryview, count: int, name: str) -> list[bytes]:
    """Split what `pack_bytes_elements` joined; raises INVALID_TENSOR unless exactly `count` fit."""
    elements: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        if end - at < _LENGTH.size:
            raise SalverError("INVALID_TENSOR", f"input {name!r} ends inside the length of element {len(elements)}")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length > end - at:
            raise SalverError(
                "INVALID_TENSOR",
                f"element {len(elements)} of input {name!r} claims {length} bytes; {end - at} are left",
            )
        elements.append(bytes(data[at : at + length]))
        at += length
        if len(elements) > count:
            break
    if len(elements) != count:
        found = f"{len(elements)}" if len(elements) < count else f"more than {count}"
        raise SalverError("INVALID_TENSOR", f"input {name!r} holds {found} elements; its shape needs {count}")
    return elements
