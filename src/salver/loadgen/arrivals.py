"""When the requests of an open loop leave: the times, and an alarm exact enough for them.

The timers of an event loop count milliseconds, which is several requests at ten thousand a
second. The kernel's timer descriptor (timerfd, Linux) wakes the loop within tens of microseconds
and costs nothing while it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from salver.protocol.arrivals import Arrivals

__all__ = ["Alarm", "arrival_times"]

_BLOCK: Final = 4096
_CLOCK_MONOTONIC: Final = 1
_TFD_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1
_NANOSECONDS: Final = 1_000_000_000


def arrival_times(
    arrivals: Arrivals, rate_per_s: float, start_s: float, generator: np.random.Generator
) -> Iterator[float]:
    """Increasing times from `start_s` on, without end, `rate_per_s` of them in a second on average.

    POISSON times have independent exponential gaps; CONSTANT ones are computed from their
    number, so no error adds up.
    """
    if arrivals is Arrivals.CONSTANT:
        number = 0
        while True:
            yield from (start_s + np.arange(number, number + _BLOCK) / rate_per_s).tolist()
            number += _BLOCK
    last_s = start_s
    while True:
        times = last_s + np.cumsum(generator.exponential(1.0 / rate_per_s, _BLOCK))
        last_s = float(times[-1])
        yield from times.tolist()


class _Interval(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Alarm:
    """Calls back on the event loop at times of the monotonic clock. Close it."""

    __slots__ = ("_descriptor", "_libc", "_loop", "_ring", "_setting")

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._setting = _Interval()
        self._descriptor: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._descriptor, self._wake)

    def set(self, at_s: float) -> None:
        """Ring once at `at_s`, at once if that has passed; replaces an earlier setting."""
        at_ns = max(1, int(at_s * _NANOSECONDS))  # 0 would disarm it
        self._setting.value_s, self._setting.value_ns = divmod(at_ns, _NANOSECONDS)
        if self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(self._setting), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
        self._ring()

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
