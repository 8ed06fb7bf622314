"""Large arrays as JSON, a slice at a time.

One call of an encoder keeps all other threads waiting until it is done, the one that serves
everybody else among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

__all__ = ["SLICE", "json_array", "json_each"]

SLICE: Final = 2**16
"""Elements that are written in one go: some milliseconds' worth."""
_encode: Final = msgspec.json.Encoder().encode

Encode = Callable[[Any], bytes]
"""Writes nested lists of numbers as JSON without spaces."""


def json_array(array: np.ndarray[Any, Any], encode: Encode = _encode) -> bytes:
    """What `encode` makes of an array as nested lists."""
    if array.size <= SLICE or not array.ndim:
        return encode(array.tolist())
    return b"[%b]" % b",".join(_parts(array, encode))


def json_each(array: np.ndarray[Any, Any], encode: Encode = _encode) -> list[bytes]:
    """What `encode` makes of each element along the first dimension; REQUIRES numbers."""
    if array.ndim == 1:
        return [each for part in _parts(array, encode) for each in part.split(b",")]
    if array.ndim == 2 and array.shape[1] <= SLICE:
        return [b"[%b]" % each for part in _parts(array, encode) for each in part[1:-1].split(b"],[")]
    return [json_array(row, encode) for row in array]


def _parts(array: np.ndarray[Any, Any], encode: Encode) -> list[bytes]:
    """The elements along the first dimension, several in a part where they are small, with commas between."""
    width = array.size // max(1, len(array))
    if width > SLICE:
        return [json_array(row, encode) for row in array]
    step = SLICE // max(1, width)
    return [encode(array[at : at + step].tolist())[1:-1] for at in range(0, len(array), step)]
