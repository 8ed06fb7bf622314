"""Structured events on standard error: one JSON object a line, rate-limited by event name.

A log line is an event with fields, never a sentence with values pasted in; JSON escapes
control characters, so a client cannot forge lines. Per-request facts are metrics; of requests
only a sample is logged (`AccessSample`).
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Final, TextIO

import msgspec

from salver.clock import SYSTEM_CLOCK, Clock

__all__ = ["AccessSample", "configure_logs", "log_event"]

_LOGGER: Final = logging.getLogger("salver")
_PER_SECOND: Final = 20
"""Events of one name written in one second; the rest is counted and told with the next."""


class _JsonLines(logging.Formatter):
    def __init__(self, role: str, clock: Clock) -> None:
        super().__init__()
        self._role = role
        self._clock = clock

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at_s": round(self._clock.wall_s(), 6),
            "level": record.levelname.lower(),
            "role": self._role,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=repr).decode()
        except (ValueError, OverflowError, TypeError):
            # Lone surrogates, numbers beyond 64 bits, odd keys: whatever it is, the event is told.
            return json.dumps(line, default=repr, skipkeys=True)


class _PerEventLimit(logging.Filter):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[str, tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        second = int(self._clock.monotonic_s())
        at, count = self._seen.get(record.msg, (second, 0))
        if at != second:
            if count > _PER_SECOND:
                record.fields = {**getattr(record, "fields", {}), "suppressed_before": count - _PER_SECOND}
            at, count = second, 0
        self._seen[record.msg] = (at, count + 1)
        return count < _PER_SECOND


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that moment: who put another in its place may have closed that one."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def configure_logs(
    role: str, *, level: str = "INFO", stream: TextIO | None = None, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Write this process's events as JSON lines to `stream` (whatever is standard error when they happen)."""
    output = logging.StreamHandler(stream) if stream else _StandardError()
    output.setFormatter(_JsonLines(role, clock))
    output.addFilter(_PerEventLimit(clock))
    _LOGGER.handlers[:] = [output]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False


def log_event(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Log `event`, a fixed name in snake_case, with `fields`."""
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, event, extra={"fields": fields}, exc_info=error)


class AccessSample:
    """Which requests are logged: every failure of the server, and one in `every` of the rest.

    Of a storm of failures - refusals of an overloaded server, say - only as many as the log would
    take: even what it drops costs tens of microseconds, which that server does not have.
    """

    __slots__ = ("_count", "_every", "_failures")

    def __init__(self, every: int) -> None:
        self._every = every
        self._count = 0
        self._failures = 0

    def renew(self) -> None:
        """Another half second begins; to be called twice a second."""
        self._failures = 0

    def takes(self, status: int) -> bool:
        """Whether to log a request that was answered with `status`."""
        if status >= 500:
            self._failures += 1
            # One more than the log takes, so that it says how many it has dropped.
            return self._failures <= _PER_SECOND + 1
        if self._every <= 0:
            return False
        self._count += 1
        if self._count < self._every:
            return False
        self._count = 0
        return True
