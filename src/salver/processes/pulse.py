"""Whether a child's event loop still turns, by the pulse that it leaves in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from salver.runtime.recorder import read_recorder

__all__ = ["PulseWatch"]

_BEGIN_S: Final = 60.0
"""How long a child may take until its event loop turns for the first time."""
_STALL_S: Final = 2.0
"""Longer between two looks, and it was this process, or the machine, that stood still."""


class PulseWatch:
    """Tells which children have been silent for longer than `hang_s`; looks several times a second.

    When the looks themselves were interrupted, the children may have stood still as well and
    through no fault of theirs: their silence counts from then.
    """

    def __init__(self, hang_s: float) -> None:
        self._hang_s = hang_s
        self._looked_s = self._stalled_s = float("-inf")

    def look(self, now_s: float) -> None:
        """Note that somebody looks; REQUIRED before children are judged."""
        if now_s - self._looked_s > _STALL_S:
            self._stalled_s = now_s
        self._looked_s = now_s

    def hung_s(self, path: Path, started_s: float, now_s: float) -> float | None:
        """How long a child that started at `started_s` has been silent, if that is too long."""
        try:
            beat_s, _ = read_recorder(path)
        except OSError:
            beat_s = 0.0
        turned = beat_s > started_s
        silent_s = now_s - max(beat_s, started_s, self._stalled_s)
        return silent_s if silent_s > (self._hang_s if turned else max(self._hang_s, _BEGIN_S)) else None
