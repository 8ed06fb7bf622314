"""How fast something comes or goes, looked at stretch by stretch."""

from __future__ import annotations

__all__ = ["Stretch"]


class Stretch:
    """A while over which a pace is measured: what came fast before it earns no time."""

    __slots__ = ("_before", "_began_s")

    def __init__(self, so_far: int, now_s: float) -> None:
        self._before = so_far
        self._began_s = now_s

    def is_slow(self, so_far: int, now_s: float, shortest_s: float, bytes_per_s: float) -> bool:
        """Whether less has come than `bytes_per_s`; never before `shortest_s` are over, and then the next begins."""
        lasted_s = now_s - self._began_s
        if lasted_s <= shortest_s:
            return False
        came = so_far - self._before
        self._before, self._began_s = so_far, now_s
        return came < lasted_s * bytes_per_s
