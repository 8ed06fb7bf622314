"""Who accepts: one byte for each server process, in a file that all of them and the supervisor map.

Each server process has listening sockets of its own, between which the kernel divides new
connections, and the supervisor holds them all. A place is vacant while its process is dead, loading
or leaving; its sockets fill up nevertheless, and the other processes accept from them until it is
taken again. So nobody waits for a process that is not there.
"""

from __future__ import annotations

import mmap
from pathlib import Path

__all__ = ["Places"]

_VACANT, _TAKEN = 0, 1


class Places:
    """The places of `count` server processes; a store or a look costs no system call."""

    __slots__ = ("_count", "_map")

    def __init__(self, path: Path, count: int) -> None:
        """Open the file, or make it with all places vacant."""
        with path.open("ab+") as file:
            # One more byte says whether all of them are to leave.
            file.truncate(count + 1)
            self._map = mmap.mmap(file.fileno(), count + 1)
        self._count = count

    def take(self, slot: int) -> None:
        """The process of this slot accepts from now on."""
        self._map[slot] = _TAKEN

    def leave(self, slot: int) -> None:
        """It does so no more."""
        self._map[slot] = _VACANT

    def is_vacant(self, slot: int) -> bool:
        """Whether nobody accepts on the slot's own account."""
        return self._map[slot] == _VACANT

    def others_serve(self, slot: int) -> bool:
        """Whether any process but that of `slot` accepts."""
        return any(self._map[other] == _TAKEN for other in range(self._count) if other != slot)

    def close_all(self) -> None:
        """All are to leave: from now on no process accepts for another that it does not accept for already."""
        self._map[self._count] = 1

    @property
    def closing(self) -> bool:
        """Whether all are to leave."""
        return self._map[self._count] == 1

    def __repr__(self) -> str:
        shown = "".join("-+"[self._map[slot]] for slot in range(self._count))
        return f"<Places {shown}{' closing' if self.closing else ''}>"
