"""Processes that were left behind: what a model's code started and its worker's death did not take along.

The kernel ends a worker when its server dies, and the server ends a worker's process group, but
neither reaches a process that left the group. The supervisor adopts such processes: as their
subreaper it becomes their parent when theirs is gone, and then it ends them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Final

from salver.clock import Clock
from salver.runtime.environment import become_subreaper, own_children
from salver.telemetry.logs import log_event

__all__ = ["Orphans"]

_SEARCH_S: Final = 5.0
"""How often orphans are looked for: the search reads the parent of every process of the machine."""
_END_S: Final = 2.0
"""How long the last search goes on: what is killed may leave others behind, and dies when the kernel lets it."""
_PAUSE_S: Final = 0.005


class Orphans:
    """The adopted processes of a supervisor whose own children are `own()`.

    Orphans of the supervisor's own session are reaped and otherwise left alone: a worker has a
    session to itself, so whatever else is there was started by who started the supervisor.
    """

    def __init__(self, own: Callable[[], Collection[int]], clock: Clock) -> None:
        self._own = own
        self._clock = clock
        self._searched_s = self._bereaved_s = float("-inf")

    @contextlib.contextmanager
    def adopted(self) -> Iterator[None]:
        """Be the parent of whoever loses theirs below this process, for as long as the block lasts."""
        become_subreaper()
        try:
            yield
        finally:
            become_subreaper(adopting=False)

    def bereaved(self, now_s: float) -> None:
        """Note that a child has died: what it leaves behind comes in the next moments."""
        self._bereaved_s = now_s

    def look(self, now_s: float) -> None:
        """Search if it is time to; to be called often."""
        if now_s - self._searched_s >= _SEARCH_S or now_s - self._bereaved_s < _SEARCH_S:
            self._searched_s = now_s
            self.end()

    def end(self) -> int:
        """Kill the orphans there are and reap those that have ended; returns how many are left."""
        own, session = self._own(), os.getsid(0)
        left = 0
        for pid in own_children():
            if pid in own:
                continue
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0 and os.getsid(pid) != session:
                    # Until it is waited for, its number belongs to nobody else.
                    os.kill(pid, signal.SIGKILL)
                    log_event("orphan_killed", pid=pid)
                    left += 1
        return left

    def end_all(self) -> None:
        """Kill until none is left, also of those whom the dead leave behind. Blocks, for 2 s at most."""
        until_s = self._clock.monotonic_s() + _END_S
        pause = threading.Event()
        while self.end() and self._clock.monotonic_s() < until_s:
            pause.wait(_PAUSE_S)
