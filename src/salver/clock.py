"""Time as a parameter: the only module that imports `time`.

Everything that measures an interval or asks for the date takes a `Clock`, so that tests turn
the hands themselves (`salver.testing.ManualClock`). `monotonic_s` never goes backwards and
serves deadlines and intervals; `wall_s` is for records that people read.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

__all__ = ["DAY_S", "SYSTEM_CLOCK", "Clock", "SystemClock"]

DAY_S: Final = 86_400.0


class Clock(Protocol):
    """A source of time in float seconds."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never decreases, ignores changes of the date."""

    def wall_s(self) -> float:
        """Seconds since the Unix epoch; may jump."""

    def thread_s(self) -> float:
        """Processor seconds of the calling thread: what it computed, without what it waited for."""


class SystemClock:
    """The clock of this machine."""

    monotonic_s = staticmethod(time.monotonic)
    wall_s = staticmethod(time.time)
    thread_s = staticmethod(time.thread_time)


SYSTEM_CLOCK = SystemClock()
