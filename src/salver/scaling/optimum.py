"""Which batch size serves best, by the service curve and by what throughput and latency are worth."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from salver.runtime.curve import Line

__all__ = ["Optimum", "Worth", "best_batch", "worth_of"]


class Worth(NamedTuple):
    """Weights of the two: of one row a second, and of one second of latency."""

    throughput: float
    latency: float


class Optimum(NamedTuple):
    """The best batch size, and what a replica does with batches of that size."""

    rows: int
    throughput_per_s: float
    """Rows a second when every batch is that large."""
    latency_s: float
    """Of a request that comes just after such a batch has begun: that batch, and its own."""
    utility: float


def worth_of(line: Line, target_s: float, most: int) -> Worth:
    """Weights for who names none: a latency of `target_s` takes away all that the highest throughput is worth."""
    highest = most / line.seconds(most) if line.seconds(most) > 0 else 1.0
    return Worth(1.0, highest / target_s)


def best_batch(line: Line, worth: Worth, most: int) -> Optimum:
    """The batch of 1 to `most` rows with the largest throughput * w_u - latency * w_l; the smallest of equals.

    With n / (a + b n) rows a second, and a latency of 2 (a + b n), each further row adds less than the one before
    it: so the best is where a row begins to add nothing, or, for weights below zero, at an end.

    >>> line = Line(a_s=0.010, b_s=0.001)
    >>> best_batch(line, Worth(1.0, 4000.0), 256).rows
    25
    >>> best_batch(line, Worth(1.0, 0.0), 256).rows
    256
    """
    if most < 1:
        raise ValueError(f"a batch of at most {most} rows is none")

    def of(rows: int) -> Optimum:
        seconds = max(line.seconds(rows), 1e-9)
        throughput, latency_s = rows / seconds, 2 * seconds
        return Optimum(rows, throughput, latency_s, throughput * worth.throughput - latency_s * worth.latency)

    level_at = 1 + bisect_left(range(1, most), True, key=lambda rows: of(rows + 1).utility <= of(rows).utility)
    return max(map(of, (1, level_at, most)), key=lambda each: each.utility)
