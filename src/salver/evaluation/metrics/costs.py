"""What a version costs: latency and size. Good enough is enough; nobody wants more of either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from salver.evaluation.reports.results import CheckResult, Mark, Plot, Role, Series
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.suite import SatisficingSettings
from salver.protocol.verdict import Verdict
from salver.stats.libraries import scipy_stats

__all__ = ["LatencyCheck", "SizeCheck", "quantile_bounds"]


class SizeCheck:
    """Whether the files of a version are small enough."""

    role = Role.SATISFICING

    def __init__(self, settings: SatisficingSettings) -> None:
        self.name = settings.name
        self._at_most = settings.at_most

    def run(self, subject: Subject) -> CheckResult:
        """Add up the files."""
        size = subject.manifest.size_bytes
        fits = size <= self._at_most
        reason = f"its files have {size:,} bytes; {self._at_most:,.0f} are allowed"
        return CheckResult(
            Verdict.SUCCESSFUL if fits else Verdict.FAILED,
            (reason,),
            {"value": size, "at_most": self._at_most},
        )


class LatencyCheck:
    """Whether single rows are answered fast enough, one after the other, by the service in this process.

    No network and no other load are in it: it compares versions and bounds what a server can reach on this
    machine. A quantile is judged by its interval, so a few fast requests prove nothing about the slowest.
    """

    role = Role.SATISFICING

    def __init__(self, settings: SatisficingSettings, quantile: float) -> None:
        self.name = settings.name
        self._settings = settings
        self._quantile = quantile

    def run(self, subject: Subject) -> CheckResult:
        """Send requests, and compare the bounds of the quantile with what is allowed."""
        settings, quantile = self._settings, self._quantile
        measured = np.sort(subject.asked.latencies_s(subject.rows, settings.requests, settings.budget_s))
        low_s, high_s = quantile_bounds(measured, quantile, subject.confidence)
        value_s = float(np.quantile(measured, quantile))
        numbers: dict[str, str | int | float | None] = {
            "value": value_s,
            "low": low_s,
            "high": high_s,
            "at_most": settings.at_most,
            "requests": len(measured),
        }
        found = f"p{quantile * 100:g} of {len(measured)} requests is {value_s:.3g} s"
        verdict, reason = Verdict.INCONCLUSIVE, f"{found}; too few or too uneven to tell from {settings.at_most:g} s"
        if high_s is not None and high_s <= settings.at_most:
            verdict, reason = Verdict.SUCCESSFUL, f"{found}, at most {high_s:.3g} s; {settings.at_most:g} s are allowed"
        elif low_s is not None and low_s > settings.at_most:
            verdict, reason = Verdict.FAILED, f"{found}, at least {low_s:.3g} s; {settings.at_most:g} s are allowed"
        return CheckResult(verdict, (reason,), numbers, plots=(_plot(measured, settings.at_most),))


def quantile_bounds(
    ordered: Sequence[float] | Array, quantile: float, confidence: float
) -> tuple[float | None, float | None]:
    """One-sided bounds of a quantile, from below and from above, each with `confidence`; None where there are too few.

    By order statistics, whatever the distribution (Conover 1999, Practical Nonparametric Statistics, section
    3.2): the number of values below the quantile is binomial.

    >>> quantile_bounds(list(range(1000)), 0.5, 0.95)
    (473.0, 526.0)
    >>> quantile_bounds(list(range(100)), 0.99, 0.95)  # of 100 values none need be beyond the p99
    (96.0, None)
    """
    count = len(ordered)
    binomial = scipy_stats().binom(count, quantile)
    below = int(binomial.ppf(1 - confidence)) - 1
    above = int(binomial.ppf(confidence))
    return (float(ordered[below]) if below >= 0 else None), (float(ordered[above]) if above < count else None)


def _plot(ordered: Array, at_most_s: float) -> Plot:
    shares = np.linspace(0, 1, 101)
    series = Series(
        "requests", Mark.LINE, tuple(np.quantile(ordered, shares).tolist()), tuple(float(share) for share in shares)
    )
    return Plot("Latency of single rows", "seconds", "share of requests answered", (series,), at_x=at_most_s)
