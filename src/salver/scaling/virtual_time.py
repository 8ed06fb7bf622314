"""An event loop whose time passes as soon as nothing is left to do at present."""

from __future__ import annotations

import asyncio
import selectors

__all__ = ["VirtualClock", "VirtualLoop"]


class VirtualClock:
    """A clock that the loop turns; both hands and the processor's move together."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds since the simulation began."""
        return self.now_s

    wall_s = thread_s = monotonic_s


class _Impatient(selectors.DefaultSelector):
    """Instead of waiting for what is due later, it lets the time pass."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the simulation waits for something that no time brings")
        if timeout > 0:
            self._clock.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks in the order and at the times of a real loop that is never late. No sockets, no threads."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        super().__init__(_Impatient(clock))

    def time(self) -> float:
        """Seconds of the virtual clock."""
        return self._clock.now_s
