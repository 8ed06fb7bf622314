"""The counters of several server processes as one: written down, read again, and added up.

What is written is a picture of the counters by the names of their attributes, in MessagePack, so
numbers stay exact and a counter that is added to `Metrics` is carried without further ado. Counters
and histograms add; of what every process sees whole, such as the store of jobs, the largest counts.
What a process has at the moment, such as connections, goes with it; what it has counted stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.clock import Clock
from salver.stats.histogram import HistogramCounter
from salver.telemetry.exposition import Gauges
from salver.telemetry.metrics import CacheCounts, Metrics, SessionCounts, VersionMetrics

__all__ = ["KeptCounts", "Picture", "read_picture", "take_over_counts", "write_counts"]

_LARGEST: Final = frozenset({"last_success_wall_s", "loop_lag_s", "insecure", "backlogs", "deliveries"})
"""What does not add: times, flags, and what is counted in one place for all."""
_PASSING: Final = frozenset({"connections", "loop_lag_s", "backlogs"})
"""What a process has only while it is there."""
_MADE: Final[dict[str, type[Any]]] = {"versions": VersionMetrics, "cache": CacheCounts, "sessions": SessionCounts}
"""What stands where there may be nothing yet."""
_KEEPING_SHARE: Final = 100.0
"""Writing counters down takes one part in so many of the time; with few versions at every thought of it."""


class Picture:
    """The counters of one process, of its predecessors, or of many; `gauges` are those of living ones."""

    def __init__(self, metrics: Metrics | None = None, gauges: Iterable[Gauges] = ()) -> None:
        self.metrics = metrics or Metrics()
        self.gauges = list(gauges)

    def bytes(self) -> bytes:
        """To be read with `read_picture`."""
        return msgspec.msgpack.encode([_drawn(self.metrics), [list(row) for row in self.gauges]])

    def __add__(self, other: Picture) -> Picture:
        both = Metrics()
        for each in (self.metrics, other.metrics):
            _add(both, _drawn(each))
        return Picture(both, _added([*self.gauges, *other.gauges]))

    def past(self) -> Picture:
        """What is left of it when its process has gone."""
        left = Metrics()
        _add(left, {name: value for name, value in _drawn(self.metrics).items() if name not in _PASSING})
        left.jobs.backlogs = {}
        return Picture(left)


def read_picture(data: bytes) -> Picture:
    """What `Picture.bytes` wrote; raises ValueError for anything else."""
    try:
        drawn, gauges = msgspec.msgpack.decode(data)
        metrics = Metrics()
        _add(metrics, drawn)
        return Picture(
            metrics, [_row([tuple(part) if isinstance(part, list) else part for part in row]) for row in gauges]
        )
    except (ValueError, AttributeError, KeyError, TypeError) as error:  # of msgspec's, too
        raise ValueError("these are no counters") from error


def take_over_counts(path: Path) -> Picture:
    """What the predecessor of a process left behind."""
    with contextlib.suppress(OSError, ValueError):
        return read_picture(path.read_bytes()).past()
    return Picture()


def write_counts(path: Path, picture: bytes) -> None:
    """Leave counters behind, whatever happens to this process from now on. A full disk loses them, no more."""
    with contextlib.suppress(OSError):
        new = path.with_suffix(".new")
        new.write_bytes(picture)
        new.replace(path)


class KeptCounts:
    """A file in which a process keeps its counters, so that its successor goes on from there as it did itself."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._before = take_over_counts(path)
        self._due_s = 0.0
        self._written = b""

    @property
    def due(self) -> bool:
        """Whether it is time to write again."""
        return self._clock.monotonic_s() >= self._due_s

    def keep(self, own: Picture) -> bytes:
        """Write down what this process and those before it have counted; returns what is written."""
        began_s = self._clock.monotonic_s()
        drawn = (self._before + own).bytes()
        if drawn != self._written:
            write_counts(self._path, drawn)
            self._written = drawn
        now_s = self._clock.monotonic_s()
        self._due_s = now_s + _KEEPING_SHARE * (now_s - began_s)
        return drawn


def _drawn(value: Any) -> Any:
    """Numbers as they are, tables as lists of pairs, whatever has attributes as a mapping of them."""
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, HistogramCounter):
        return [list(value.counts), value.total]
    if isinstance(value, dict):
        return [[key, _drawn(each)] for key, each in value.items()]
    if isinstance(value, tuple):
        return list(value)
    names = getattr(type(value), "__slots__", None) or vars(value)
    return {name: _drawn(getattr(value, name)) for name in names}


def _add(target: Any, drawn: dict[str, Any]) -> None:
    for name, value in drawn.items():
        setattr(target, name, _sum(name, getattr(target, name), value))


def _sum(name: str, have: Any, come: Any) -> Any:
    if come is None:
        return have
    if isinstance(have, HistogramCounter):
        have.counts = [a + b for a, b in zip(have.counts, come[0], strict=True)]
        have.total += come[1]
        return have
    if isinstance(have, dict):
        for written, value in come:
            key = tuple(written) if isinstance(written, list) else written
            have[key] = _sum(name, have.get(key), value)
        return have
    if isinstance(come, dict):
        made = have if have is not None else _MADE[name]()
        _add(made, come)
        return made
    if isinstance(come, list):  # several numbers that belong together
        return tuple(max(pair) for pair in zip(have, come, strict=True)) if have else tuple(come)
    if name in _LARGEST:
        return max(have or 0, come)
    return (have or 0) + come


def _added(rows: Iterable[Gauges]) -> list[Gauges]:
    found: dict[tuple[str, str], Gauges] = {}
    for row in rows:
        key = (row.endpoint, row.version)
        found[key] = _both(found[key], row) if key in found else row
    return list(found.values())


def _both(a: Gauges, b: Gauges) -> Gauges:
    values: list[Any] = [a.endpoint, a.version]
    pairs: Iterable[tuple[str, Any, Any]] = zip(Gauges._fields, a, b, strict=True)
    for name, one, other in list(pairs)[2:]:
        if name == "available":
            # Whoever comes to the process that has none is not answered.
            values.append(one and other)
        elif one is None or other is None:
            values.append(other if one is None else one)
        elif isinstance(one, tuple):
            values.append(tuple(x + y for x, y in zip(one, other, strict=True)))
        else:
            values.append(one + other)
    return _row(values)


def _row(values: list[Any]) -> Gauges:
    if len(values) != len(Gauges._fields):
        raise TypeError("the row is of another version")
    return Gauges(*values)
