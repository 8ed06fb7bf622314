"""Replacing the server processes one after another, while the others answer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

from salver.processes.child import Child
from salver.telemetry.logs import log_event

__all__ = ["Rolling"]


class Rolling:
    """Ends each child in turn; the next one only when the successor of the one before has begun its work.

    So where a successor does not get ready, the rest stays as it is. Whoever has not ended after
    `patience_s` is killed.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._due: deque[Child] = deque()
        self._ending: tuple[Child, int | None] | None = None
        self._until_s = 0.0

    def begin(self, children: Iterable[Child]) -> None:
        """Replace these, too."""
        self._due.extend(child for child in children if child not in self._due)

    def look(self, now_s: float) -> None:
        """Take the next step, if it is time for it; to be called often."""
        if self._ending is not None:
            child, pid = self._ending
            if child.pid == pid:
                if now_s > self._until_s:
                    log_event("drain_timed_out", level=logging.WARNING, child=child.role, pid=pid)
                    child.kill()
                return
            if child.report is None:
                return
            self._ending = None
        if self._due and self._due[0].report is not None:
            child = self._due.popleft()
            child.tell_to_end()
            self._ending, self._until_s = (child, child.pid), now_s + self._patience_s
