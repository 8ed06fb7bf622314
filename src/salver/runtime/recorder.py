"""The flight recorder: which version computes in this process right now.

A crash in native code, or a hang on the event loop, takes the server process with it and
leaves no exception behind. So each in-process computation leaves a mark in a small file that
outlives the process: the supervisor reads it afterwards, and a version found running at the
end is moved to a worker process of its own (see `salver.runtime.host`).

The file is mapped shared memory, so a mark costs one store and survives SIGKILL.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["FlightRecorder", "read_recorder"]

_SLOTS: Final = 64
_DIGEST_BYTES: Final = 32
_HEARTBEAT: Final = struct.Struct("<d")
_SLOT: Final = struct.Struct(f"<B{_DIGEST_BYTES}s")
_UNREAD: Final = _SLOTS
_SIZE: Final = _HEARTBEAT.size + (_SLOTS + 1) * _SLOT.size


class FlightRecorder:
    """The writing side, in the server process."""

    def __init__(self, path: Path) -> None:
        with path.open("wb+") as file:
            file.truncate(_SIZE)
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._free = list(range(_SLOTS))

    def slot(self, digest: str) -> int:
        """Take a slot for a replica of the version with this hexadecimal digest.

        Replicas beyond 64 in one process share a last slot that nobody reads.
        """
        if not self._free:
            return _UNREAD
        slot = self._free.pop()
        _SLOT.pack_into(self._map, self._at(slot), 0, bytes.fromhex(digest))
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self.ended(slot)
        if slot != _UNREAD:
            self._free.append(slot)

    def began(self, slot: int) -> None:
        """Mark that the slot's replica computes."""
        self._map[_HEARTBEAT.size + slot * _SLOT.size] = 1

    def ended(self, slot: int) -> None:
        """Mark that it no longer does."""
        self._map[_HEARTBEAT.size + slot * _SLOT.size] = 0

    @contextlib.contextmanager
    def computing(self, digest: str) -> Iterator[None]:
        """Mark a version while it is loaded and tried, which may crash a process as well."""
        slot = self.slot(digest)
        self.began(slot)
        try:
            yield
        finally:
            self.release(slot)

    def beat(self, monotonic_s: float) -> None:
        """Note that the event loop turned."""
        _HEARTBEAT.pack_into(self._map, 0, monotonic_s)

    @staticmethod
    def _at(slot: int) -> int:
        return _HEARTBEAT.size + slot * _SLOT.size


def read_recorder(path: Path) -> tuple[float, set[str]]:
    """The monotonic time of the last turn of the loop, and the digests of the versions computing."""
    data = path.read_bytes()
    if len(data) != _SIZE:
        return 0.0, set()
    (beat,) = _HEARTBEAT.unpack_from(data, 0)
    running = set()
    for slot in range(_SLOTS):
        computing, digest = _SLOT.unpack_from(data, _HEARTBEAT.size + slot * _SLOT.size)
        if computing:
            running.add(digest.hex())
    return beat, running
