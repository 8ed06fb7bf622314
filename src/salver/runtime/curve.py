"""The measured service curve of a version, and the placement that follows from it."""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["INLINE_BELOW_S", "Lane", "ServiceCurve", "choose_lane"]

INLINE_BELOW_S = 0.3e-3
"""A batch predicted to take less runs on the event loop: about where the hand-over to a thread
and back costs as much as it saves. Measured; see docs/performance.md."""
_HYSTERESIS = 0.2
_WEIGHT = 0.2
"""Of a new measurement against the old average: about ten batches to follow a change."""
_LEAST_S = 1e-5
"""Twice nothing is nothing: an average below what a clock resolves may grow to this."""


class Lane(enum.StrEnum):
    """Where a data format computes inside the server process."""

    INLINE = "inline"
    THREAD = "thread"


class ServiceCurve:
    """Seconds a batch takes by its rows: an exponential average for each power of two of rows."""

    __slots__ = ("_averages", "longest_s")

    def __init__(self) -> None:
        self._averages: dict[int, float] = {}
        self.longest_s = 0.0

    @classmethod
    def of(cls, points: Mapping[int, float]) -> ServiceCurve:
        """A curve that begins with the `points` of another."""
        curve = cls()
        for rows, seconds in points.items():
            curve.observe(rows, seconds)
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
        else:
            self._averages[bucket] = known + _WEIGHT * (min(seconds, max(2 * known, _LEAST_S)) - known)
        self.longest_s = max(self.longest_s, seconds)

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
        """Largest rows of each measured size -> seconds, for people to see."""
        return {2**bucket - 1: seconds for bucket, seconds in sorted(self._averages.items())}


def choose_lane(predicted_s: float | None, current: Lane) -> Lane:
    """Inline while the predicted time is short, with 20 % of hysteresis around the border.

    >>> choose_lane(0.0001, Lane.THREAD), choose_lane(0.0003, Lane.INLINE), choose_lane(0.0004, Lane.INLINE)
    (<Lane.INLINE: 'inline'>, <Lane.INLINE: 'inline'>, <Lane.THREAD: 'thread'>)
    """
    if predicted_s is None:
        return Lane.THREAD
    if current is Lane.INLINE:
        return Lane.INLINE if predicted_s <= INLINE_BELOW_S * (1 + _HYSTERESIS) else Lane.THREAD
    return Lane.INLINE if predicted_s < INLINE_BELOW_S * (1 - _HYSTERESIS) else Lane.THREAD
