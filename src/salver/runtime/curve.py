"""The measured service curve of a version, and the placement that follows from it.

A batch's *size* is its rows or, for versions that declare what a request costs, that cost.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

from salver.protocol.tables import Placement

__all__ = ["INLINE_BELOW_S", "Line", "Measured", "ServiceCurve", "choose_placement"]

INLINE_BELOW_S = 0.3e-3
"""A batch predicted to take less runs on the event loop: about where the hand-over to a thread
and back costs as much as it saves. Measured; see docs/performance.md."""
_HYSTERESIS = 0.2
_WEIGHT = 0.2
"""Of a new measurement against the old average: about ten batches to follow a change."""
_LEAST_S = 1e-5
"""Twice nothing is nothing: an average below what a clock resolves may grow to this."""


_MOST_SCATTER: Final = 0.5
"""Where the averages lie further from the line than this share of theirs (root mean square), the curve is none."""


class Line(NamedTuple):
    """A service curve as a line: a batch of size n takes a + b n seconds."""

    a_s: float
    b_s: float

    def seconds(self, size: float) -> float:
        """What a batch of this size takes."""
        return self.a_s + self.b_s * size


class Measured(msgspec.Struct, frozen=True):
    """What a service curve holds, as it travels: mean size -> mean seconds, and the longest batch.

    `problem` says what ended the measuring before its time, if anything did.
    """

    points: dict[int, float] = {}
    longest_s: float = 0.0
    problem: str = ""


class ServiceCurve:
    """Seconds a batch takes by its size: exponential averages of both for each power of two."""

    __slots__ = ("_averages", "_line", "_sizes", "longest_s")

    def __init__(self) -> None:
        self._averages: dict[int, float] = {}
        self._sizes: dict[int, float] = {}
        self._line: tuple[Line | None] | None = None
        """What `line` found, until something new is measured."""
        self.longest_s = 0.0

    @classmethod
    def of(cls, measured: Measured) -> ServiceCurve:
        """A curve that begins with what another measured."""
        curve = cls()
        curve.adopt(measured)
        return curve

    def observe(self, rows: int, seconds: float) -> None:
        """Take in one measured batch.

        A measurement counts as at most twice the average: a batch that merely waited for a
        processor or for the interpreter lock must not look like a slow model.
        """
        bucket = rows.bit_length()
        known = self._averages.get(bucket)
        if known is None:
            self._averages[bucket] = seconds
            self._sizes[bucket] = rows
        else:
            self._averages[bucket] = known + _WEIGHT * (min(seconds, max(2 * known, _LEAST_S)) - known)
            self._sizes[bucket] += _WEIGHT * (rows - self._sizes[bucket])
        self._line = None
        self.longest_s = max(self.longest_s, seconds)

    def adopt(self, measured: Measured) -> None:
        """Take in what another curve measured, for sizes this one knows nothing of.

        What was measured here stays: a version that is tried again, in another replica or after its
        worker died, teaches nothing about sizes that have answered requests since.
        """
        for rows, seconds in measured.points.items():
            self._averages.setdefault(rows.bit_length(), seconds)
            self._sizes.setdefault(rows.bit_length(), rows)
        self._line = None
        self.longest_s = max(self.longest_s, measured.longest_s)

    def predict(self, rows: int) -> float | None:
        """Seconds a batch of `rows` will take, or None before anything was measured.

        Without a measurement of that size: the nearest smaller size scaled by the rows, which
        errs on the long side, else the nearest larger size as it is.
        """
        bucket = rows.bit_length()
        known = self._averages.get(bucket)
        if known is not None:
            return known
        smaller = [size for size in self._averages if size < bucket]
        if smaller:
            nearest = max(smaller)
            return float(self._averages[nearest] * 2 ** (bucket - nearest))
        larger = [size for size in self._averages if size > bucket]
        return self._averages[min(larger)] if larger else None

    def expect(self, size: int) -> float | None:
        """Seconds a batch of this size takes: by the line where there is one, else as `predict` says."""
        line = self.line()
        return self.predict(size) if line is None else line.seconds(size)

    def line(self) -> Line | None:
        """The line a + b n through the averages; None where fewer than two sizes are known, or no line fits.

        Least squares of relative errors, so that small batches count as much as large ones; neither
        part is below zero.
        """
        if self._line is None:
            self._line = (_fit(self._means()),)
        return self._line[0]

    def estimate(self) -> Line | None:
        """The line, else what the largest size measured takes in proportion; None before anything was measured."""
        line = self.line()
        if line is None and self._averages:
            size, seconds = max(self._means())
            line = Line(0.0, seconds / max(size, 1.0))
        return line

    def _means(self) -> list[tuple[float, float]]:
        return [(self._sizes[bucket], seconds) for bucket, seconds in self._averages.items()]

    def points(self) -> dict[int, float]:
        """Mean size -> mean seconds for each power of two that was measured, in whole numbers."""
        return {round(self._sizes[bucket]): seconds for bucket, seconds in sorted(self._averages.items())}

    def freeze(self) -> Measured:
        """All of it as a value."""
        return Measured(self.points(), self.longest_s)


def _fit(points: list[tuple[float, float]]) -> Line | None:
    if len(points) < 2:
        return None
    weights = [1 / max(seconds, 1e-9) ** 2 for _, seconds in points]
    total = sum(weights)
    mean_n = sum(w * n for w, (n, _) in zip(weights, points, strict=True)) / total
    mean_s = sum(w * s for w, (_, s) in zip(weights, points, strict=True)) / total
    spread = sum(w * (n - mean_n) ** 2 for w, (n, _) in zip(weights, points, strict=True))
    slope = sum(w * (n - mean_n) * (s - mean_s) for w, (n, s) in zip(weights, points, strict=True)) / spread
    line = Line(mean_s - slope * mean_n, slope)
    if line.b_s < 0:
        line = Line(mean_s, 0.0)
    elif line.a_s < 0:
        through_origin = sum(w * n * s for w, (n, s) in zip(weights, points, strict=True)) / sum(
            w * n * n for w, (n, _) in zip(weights, points, strict=True)
        )
        line = Line(0.0, through_origin)
    errors = [line.seconds(n) / max(s, 1e-9) - 1 for n, s in points]
    scatter = math.sqrt(sum(error * error for error in errors) / len(errors))
    return line if scatter <= _MOST_SCATTER else None


def choose_placement(predicted_s: float | None, current: Placement) -> Placement:
    """Inline while the predicted time is short, with 20 % of hysteresis around the border; else in the thread.

    >>> [str(choose_placement(s, Placement.INLINE)) for s in (None, 0.0003, 0.0004)]
    ['thread', 'inline', 'thread']
    >>> [str(choose_placement(s, Placement.THREAD)) for s in (0.0001, 0.0003)]
    ['inline', 'thread']
    """
    if predicted_s is None:
        return Placement.THREAD
    border = 1 + _HYSTERESIS if current is Placement.INLINE else 1 - _HYSTERESIS
    return Placement.INLINE if predicted_s < INLINE_BELOW_S * border else Placement.THREAD
