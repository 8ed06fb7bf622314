"""Clients that wait for the end of a job on an open connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

__all__ = ["JobWaits"]

_LOOK_S: Final = 1.0
"""How often a job that another process may run is looked at."""
_MOST: Final = 1000
"""So many wait; who comes then is answered at once, which `Prefer: wait` permits."""


class JobWaits:
    """Who waits for which job. Lives on the event loop."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._count = 0

    def ended(self, id: bytes) -> None:
        """Tell those who wait for it that a job has ended."""
        for event in self._waiting.get(id, ()):
            event.set()

    @contextlib.contextmanager
    def place(self, id: bytes) -> Iterator[asyncio.Event | None]:
        """A place to wait in, None if all are taken; to be had before the job is looked at, or its end is missed."""
        if self._count >= _MOST:
            yield None
            return
        event = asyncio.Event()
        those = self._waiting.setdefault(id, set())
        those.add(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            those.discard(event)
            if not those:
                self._waiting.pop(id, None)

    async def look_again(self, event: asyncio.Event, left_s: float) -> None:
        """Return when it is time to look at the job again: it has ended here, or a second or `left_s` is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), min(left_s, _LOOK_S))
        event.clear()
