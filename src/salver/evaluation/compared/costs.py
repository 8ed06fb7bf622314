"""What two versions cost: the latency of single rows, measured in turns, and the size of their files."""

from __future__ import annotations

from typing import Final

import numpy as np

from salver.evaluation.compared.findings import ComparisonSettings, Findings, PairResult, Part
from salver.evaluation.metrics.costs import quantile_bounds
from salver.evaluation.reports.records import CheckRecord
from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Asked, Subject
from salver.evaluation.suites.suite import Suite
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.stats.bootstrap import bootstrap_difference
from salver.stats.paired import wilcoxon

__all__ = ["compare_latency", "compare_size"]

_TURNS: Final = 8
_FEWEST: Final = 10
_QUANTILES: Final = (0.5, 0.9, 0.99)


def compare_latency(subject: Subject, _: Suite, settings: ComparisonSettings) -> Findings:
    """Compare the medians of single rows, one after the other, in this process.

    The versions take turns, first one and then the other first, so that a machine that slows down slows both; what one
    asks at a place of a turn, the other does too, and these are the pairs. Wilcoxon's signed-rank test, the interval of
    the medians' difference by a paired bootstrap. It is no part of the verdict: what is fast enough a suite says.
    """
    assert subject.rival is not None
    first, second = _measured(subject, subject.asked, subject.rival, settings)
    medians = float(np.median(first)), float(np.median(second))
    drawn = bootstrap_difference(
        lambda _, times: -float(np.median(times)),
        np.ones(len(first)),
        first,
        second,
        subject.rng("latency"),
        resamples=subject.resamples,
        level=2 * subject.confidence - 1,
        method="percentile",
    )
    test = PairResult(
        Part.LATENCY,
        "latency_p50_s",
        Role.SATISFICING,
        *medians,
        drawn.interval,
        settings.latency_margin_ratio * medians[1],
        "Wilcoxon and paired bootstrap",
        wilcoxon(first, second).p_value,
        len(first),
    )
    result = _told(subject, (first, second), medians)
    return Findings((test,), (CheckRecord.of("latency", Role.SATISFICING, result),))


def _measured(subject: Subject, first: Asked, second: Asked, settings: ComparisonSettings) -> tuple[Array, Array]:
    each, budget_s = max(_FEWEST, settings.requests // _TURNS), settings.budget_s / (2 * _TURNS)
    kept: tuple[list[float], list[float]] = ([], [])
    for turn in range(_TURNS):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        times: dict[int, list[float]] = {}
        for which in order:
            times[which] = (first, second)[which].latencies_s(subject.rows, each, budget_s)
        pairs = min(len(times[0]), len(times[1]))
        for which in order:
            kept[which].extend(times[which][:pairs])
    if len(kept[0]) < _FEWEST:
        raise SalverError(
            "DEADLINE_EXCEEDED",
            f"{len(kept[0])} requests were answered in the {settings.budget_s:g} s that latency is measured",
            "give more time with --budget",
        )
    return np.array(kept[0]), np.array(kept[1])


def _told(subject: Subject, times: tuple[Array, Array], medians: tuple[float, float]) -> CheckResult:
    assert subject.rival is not None
    references = subject.manifest.reference, subject.rival.manifest.reference
    rows: list[tuple[str | float | None, ...]] = []
    series = []
    shares = np.linspace(0, 1, 101)
    for reference, seconds in zip(references, times, strict=True):
        ordered = np.sort(seconds)
        for quantile in _QUANTILES:
            low, high = quantile_bounds(ordered, quantile, subject.confidence)
            rows.append((reference, f"p{quantile * 100:g}", float(np.quantile(ordered, quantile)), low, high))
        curve = tuple(np.quantile(ordered, shares).tolist())
        series.append(Series(reference, Mark.LINE, curve, tuple(shares.tolist())))
    ratio = medians[0] / medians[1]
    said = f"half of {len(times[0])} requests took {medians[0]:.3g} s at most"
    reason = f"{said}, of the second {medians[1]:.3g} s ({ratio:.2f} times)"
    numbers: dict[str, str | int | float | None] = {"ratio": ratio, "requests": len(times[0])}
    table = ResultTable(
        "Seconds from request to answer", ("version", "quantile", "seconds", "low", "high"), tuple(rows)
    )
    plot = Plot("Latency of single rows", "seconds", "share of requests answered", tuple(series))
    return CheckResult(Verdict.SUCCESSFUL, (reason,), numbers, (table,), (plot,))


def compare_size(subject: Subject, _: Suite, __: ComparisonSettings) -> Findings:
    """The bytes of the files of either; there is nothing to test."""
    assert subject.rival is not None
    first, second = subject.manifest.size_bytes, subject.rival.manifest.size_bytes
    numbers: dict[str, str | int | float | None] = {
        "first_bytes": first,
        "second_bytes": second,
        "ratio": first / second if second else None,
    }
    reason = f"its files have {first:,} bytes, those of the second {second:,}"
    return Findings(
        (), (CheckRecord.of("size", Role.SATISFICING, CheckResult(Verdict.SUCCESSFUL, (reason,), numbers)),)
    )
