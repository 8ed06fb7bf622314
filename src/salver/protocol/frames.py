"""Frames between a server process and its workers: a header and raw tensor bytes, never pickle.

A frame is `kind` (1 byte), the length of the header (4 bytes) and of the body (8 bytes), all
little-endian, then both. The header is MessagePack; for arrays it lists their descriptions.
Bodies above a size lie in shared memory instead, and the header says so.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.tensor import bytes_element, pack_bytes_elements, unpack_bytes_elements

__all__ = [
    "ARENA_BYTES",
    "PREFIX",
    "SHARED_ABOVE_BYTES",
    "ArrayEntry",
    "ArrayHeader",
    "FrameKind",
    "ProblemHeader",
    "StreamHeader",
    "describe_arrays",
    "pack_frame",
    "read_arrays",
]

PREFIX: Final = struct.Struct("<BIQ")
ARENA_BYTES: Final = 64 * 2**20
"""Shared memory for each direction of one worker; pages cost nothing until they are touched."""
SHARED_ABOVE_BYTES: Final = 128 * 2**10
"""Above this a body goes through shared memory: copying it through a socket costs more."""


class FrameKind(enum.IntEnum):
    """What a frame says. LOAD, STOP, RUN, OPEN, CREDIT, CANCEL and TAKEN go to the worker, the others come from it."""

    LOAD = 1
    STOP = 2
    RUN = 3
    LOADED = 4
    REFUSED = 5
    RESULT = 6
    RAISED = 7
    BAD_OUTPUT = 8
    BEAT = 9
    OPEN = 10
    """Begin a stream; it has no credit yet."""
    CREDIT = 11
    """So many more chunks of a stream may come."""
    CANCEL = 12
    """Nobody wants the rest of a stream; ENDED answers it."""
    TAKEN = 13
    """What was in the shared memory for answers has been read."""
    CHUNK = 14
    ENDED = 15
    """A stream has no more, or was cancelled."""
    STREAM_RAISED = 16
    STREAM_BAD_OUTPUT = 17
    """The last word of a stream, like ENDED and STREAM_RAISED."""


class ArrayEntry(msgspec.Struct, frozen=True, array_like=True):
    """One array: its name, numpy type string, shape, and bytes in the body. "|O" is packed byte strings."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


class ArrayHeader(msgspec.Struct, frozen=True, array_like=True):
    """The header of RUN and RESULT, OPEN and CHUNK. `seconds` is the computing time of a RESULT or CHUNK.

    `batch` numbers the batches of a worker, and apart from them its streams. An answer repeats it: one
    that nobody asked for must never be taken for the one that is owed.
    """

    batch: int
    arrays: tuple[ArrayEntry, ...]
    shared: bool = False
    seconds: float = 0.0


class ProblemHeader(msgspec.Struct, frozen=True, array_like=True):
    """The header of RAISED, BAD_OUTPUT and their likes for streams: the batch or stream, and what is wrong."""

    batch: int
    problem: str
    refusal: str = ""
    """What the model says to the client whose input it cannot use."""


class StreamHeader(msgspec.Struct, frozen=True, array_like=True):
    """The header of CREDIT, CANCEL and ENDED: the stream, and how many more chunks may come."""

    stream: int
    chunks: int = 0


def pack_frame(kind: FrameKind, header: object = None, body_bytes: int = 0) -> bytes:
    """The prefix and header of a frame, behind which `body_bytes` of body follow."""
    encoded = msgspec.msgpack.encode(header)
    return PREFIX.pack(kind, len(encoded), body_bytes) + encoded


def describe_arrays(arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[tuple[ArrayEntry, ...], list[bytes]]:
    """The descriptions of `arrays` and their bytes, in the same order.

    Raises TypeError for arrays of anything but numbers, booleans, text and byte strings, and for
    names that are no text; ValueError for text that UTF-8 cannot hold.
    """
    entries, parts = [], []
    if not isinstance(arrays, Mapping):
        raise TypeError(f"it is a {type(arrays).__name__}, not arrays by name")
    for name, array in arrays.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise TypeError(f"{str(name)[:80]!r} is a {type(array).__name__}, not an array by name")
        if array.dtype.kind in "OSU":
            dtype, data = "|O", pack_bytes_elements([bytes_element(item) for item in array.reshape(-1).tolist()])
        elif array.dtype.kind in "biuf":
            dtype, data = array.dtype.str, array.tobytes()
        else:
            raise TypeError(f"{name!r} is an array of {array.dtype}, which cannot be served")
        entries.append(ArrayEntry(name, dtype, array.shape, len(data)))
        parts.append(data)
    return tuple(entries), parts


def read_arrays(entries: tuple[ArrayEntry, ...], body: bytes | memoryview) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays in `body`, as views of it where alignment allows; ValueError for a body that is too short."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    at = 0
    for entry in entries:
        data = memoryview(body)[at : at + entry.size_bytes]
        at += entry.size_bytes
        if len(data) != entry.size_bytes:
            raise ValueError(f"{entry.name!r} claims {entry.size_bytes} bytes; {len(data)} are left")
        if entry.dtype == "|O":
            count = int(np.prod(entry.shape, dtype=np.int64))
            array = np.empty(count, dtype=object)
            array[:] = unpack_bytes_elements(data, count, entry.name)
        else:
            array = np.frombuffer(data, dtype=np.dtype(entry.dtype))
            if not array.flags.aligned:
                # Behind an array of odd length. Native code may rely on alignment.
                array = array.copy()
                array.flags.writeable = False
        arrays[entry.name] = array.reshape(entry.shape)
    return arrays
