"""The measured service curve of a version, and the placement that follows from it."""

from __future__ import annotations

import msgspec

from salver.protocol.tables import Placement

__all__ = ["INLINE_BELOW_S", "Measured", "ServiceCurve", "choose_placement"]

INLINE_BELOW_S = 0.3e-3
"""A batch predicted to take less runs on the event loop: about where the hand-over to a thread
and back costs as much as it saves. Measured; see docs/performance.md."""
_HYSTERESIS = 0.2
_WEIGHT = 0.2
"""Of a new measurement against the old average: about ten batches to follow a change."""
_LEAST_S = 1e-5
"""Twice nothing is nothing: an average below what a clock resolves may grow to this."""


class Measured(msgspec.Struct, frozen=True):
    """What a service curve holds, as it travels: most rows seen of each size -> seconds, and the longest batch.

    `problem` says what ended the measuring before its time, if anything did.
    """

    points: dict[int, float] = {}
    longest_s: float = 0.0
    problem: str = ""


class ServiceCurve:
    """Seconds a batch takes by its rows: an exponential average for each power of two of rows."""

    __slots__ = ("_averages", "_most_rows", "longest_s")

    def __init__(self) -> None:
        self._averages: dict[int, float] = {}
        self._most_rows: dict[int, int] = {}
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
        if rows > self._most_rows.get(bucket, -1):
            self._most_rows[bucket] = rows
        if known is None:
            self._averages[bucket] = seconds
        else:
            self._averages[bucket] = known + _WEIGHT * (min(seconds, max(2 * known, _LEAST_S)) - known)
        self.longest_s = max(self.longest_s, seconds)

    def adopt(self, measured: Measured) -> None:
        """Take in what another curve measured, for sizes this one knows nothing of.

        What was measured here stays: a version that is tried again, in another replica or after its
        worker died, teaches nothing about sizes that have answered requests since.
        """
        for rows, seconds in measured.points.items():
            self._averages.setdefault(rows.bit_length(), seconds)
            self._most_rows.setdefault(rows.bit_length(), rows)
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

    def points(self) -> dict[int, float]:
        """The most rows seen of each measured size -> seconds, for people to see."""
        return {self._most_rows[bucket]: seconds for bucket, seconds in sorted(self._averages.items())}

    def freeze(self) -> Measured:
        """All of it as a value."""
        return Measured(self.points(), self.longest_s)


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
