"""What came of a measurement: counts, percentiles, a histogram, and how far to trust them."""

from __future__ import annotations

from array import array
from typing import Any, Final

import msgspec
import numpy as np

__all__ = ["Bucket", "Latency", "Lateness", "LoadReport", "Samples", "percentiles", "summarise"]

_BUCKETS: Final = 20
_BLOCK: Final = 4096


class Latency(msgspec.Struct, frozen=True):
    """Seconds from the moment a request was meant to leave to its whole answer."""

    mean_s: float
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    p999_s: float
    max_s: float
    exact: bool
    """False when there were more answers than samples kept: then all but `max_s` are estimates."""


class Bucket(msgspec.Struct, frozen=True):
    """How many latencies lie above the bucket before and at most at `upto_s`."""

    upto_s: float
    count: int


class Lateness(msgspec.Struct, frozen=True):
    """How long after their time the generator itself got to its requests; the server has no part in it."""

    p50_s: float
    p99_s: float
    max_s: float


class LoadReport(msgspec.Struct, frozen=True):
    """The measured seconds of one plan.

    A request belongs to them when it was meant to leave within them. `latency` covers the
    successful answers and, with the time they had waited until then, the requests given up
    after `timeout_s`; refusals are often fast and would flatter it, so they have `refusals`.
    """

    url: str
    path: str
    mode: str
    connections: int
    arrivals: str | None
    rate_per_s: float | None
    warmup_s: float
    measured_s: float
    sent: int
    ok: int
    failed: int
    """Requests answered with an error, given up, lost with their connection, or never sent."""
    unanswered: int
    """Requests still on the way when the run was interrupted; neither ok nor failed."""
    within_s: float
    """The plan's; 0 for none."""
    within: int | None
    """Successful answers that came within the plan's `within_s`, where it has one."""
    errors: dict[str, int]
    """Failures by "STATUS CODE", TIMEOUT, CONNECTION_LOST, BAD_HTTP, BACKLOG_FULL or WRONG_ANSWER."""
    words: dict[str, str]
    """What the first failure of each kind said, where it said anything."""
    achieved_rate_per_s: float
    """Successful answers that came within the measured seconds, per second."""
    latency: Latency | None
    refusals: Latency | None
    """The same for answers that were errors."""
    histogram: tuple[Bucket, ...]
    lateness: Lateness | None
    backlog_max: int
    """Most requests of an open loop that waited for a free connection at one time."""
    reconnects: int
    connect_failures: int
    generator_cpu_ratio: float
    """Processor time of the generating process per second; near 1 the generator was the limit."""
    interrupted: bool
    notes: tuple[str, ...] = ()
    """What makes the numbers doubtful, in words."""


class Samples:
    """A bounded collection of values: all of them up to `capacity`, then a uniform sample.

    Beyond the capacity each value replaces a random kept one with the probability that makes
    every value equally likely to be kept (algorithm R, Vitter 1985). `largest` is always exact.
    """

    __slots__ = ("_capacity", "_draws", "_generator", "_values", "largest", "seen")

    def __init__(self, capacity: int, generator: np.random.Generator) -> None:
        self._capacity = capacity
        self._generator = generator
        self._values = array("d")
        self._draws: list[float] = []
        self.seen = 0
        self.largest = 0.0

    def add(self, value: float) -> None:
        """Take in one value."""
        self.seen += 1
        self.largest = max(self.largest, value)
        if self.seen <= self._capacity:
            self._values.append(value)
            return
        if not self._draws:
            self._draws = self._generator.random(_BLOCK).tolist()
        place = int(self._draws.pop() * self.seen)
        if place < self._capacity:
            self._values[place] = value

    @property
    def exact(self) -> bool:
        """Whether every value is kept."""
        return self.seen <= self._capacity

    def numpy(self) -> np.ndarray[Any, Any]:
        """The kept values."""
        return np.array(self._values)


def summarise(latencies: Samples, lags: Samples) -> tuple[Latency | None, tuple[Bucket, ...], Lateness | None]:
    """Percentiles of both, and a histogram of the latencies.

    Percentiles are values that occurred (the smallest with at least that share of all at or
    below it), not interpolated between two.
    """
    lateness = None
    if lags.seen:
        p50, p99 = _quantiles(lags.numpy(), 0.5, 0.99)
        lateness = Lateness(p50, p99, lags.largest)
    if not latencies.seen:
        return None, (), lateness
    return percentiles(latencies), _histogram(latencies.numpy()), lateness


def percentiles(latencies: Samples) -> Latency | None:
    """The percentiles of a sample; None when it is empty."""
    if not latencies.seen:
        return None
    values = latencies.numpy()
    p50, p90, p95, p99, p999 = _quantiles(values, 0.5, 0.9, 0.95, 0.99, 0.999)
    return Latency(float(values.mean()), p50, p90, p95, p99, p999, latencies.largest, latencies.exact)


def _quantiles(values: np.ndarray[Any, Any], *shares: float) -> list[float]:
    found: list[float] = np.quantile(values, shares, method="inverted_cdf").tolist()
    return found


def _histogram(values: np.ndarray[Any, Any]) -> tuple[Bucket, ...]:
    """Buckets of equal ratio from the smallest to the largest value."""
    least, most = max(float(values.min()), 1e-9), max(float(values.max()), 1e-9)
    if most <= least:
        return (Bucket(most, len(values)),)
    edges = np.geomspace(least, most, _BUCKETS + 1)
    edges[-1] = most
    counts = np.bincount(np.clip(np.searchsorted(edges, values, side="left"), 1, _BUCKETS), minlength=_BUCKETS + 1)
    return tuple(Bucket(edge, count) for edge, count in zip(edges[1:].tolist(), counts[1:].tolist(), strict=True))
