"""Whether probabilities are what they say: of the rows given 0.8, eight of ten should come true.

For two classes the probability of the positive one is looked at, for more that of the label given. The error
over bins is above 0 for perfect probabilities too, the more so the fewer rows, and a bootstrap adds as much
again; its bounds here allow for what noise alone makes.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.predictions import Task
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.suite import CalibrationSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.bootstrap import bootstrap_metric
from salver.stats.calibration import (
    ReliabilityBin,
    brier_decomposition,
    calibration_error,
    reliability_curve,
    spiegelhalter,
    top_label,
)
from salver.stats.intervals import Interval
from salver.stats.margins import judge_bound

__all__ = ["CalibrationCheck", "ece_interval"]

Numbers = dict[str, str | int | float | None]


class CalibrationCheck:
    """Calibration errors and Brier's score against their bounds; without bounds it only reports."""

    name = "calibration"
    role = Role.SAFEGUARD

    def __init__(self, settings: CalibrationSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Compare the probabilities of the rows with what came true."""
        came_true, said = _outcomes(subject)
        bins = self._settings.bins
        errors = calibration_error(came_true, said, bins=bins)
        brier = brier_decomposition(came_true, said, bins=bins)
        numbers: Numbers = {
            "ece": errors.ece,
            "ece_debiased": errors.ece_debiased,
            "mce": errors.mce,
            "brier": brier.score,
            "reliability": brier.reliability,
            "resolution": brier.resolution,
            "uncertainty": brier.uncertainty,
            "within_variance": brier.within_variance,
            "within_covariance": brier.within_covariance,
        }
        numbers |= _spiegelhalter(came_true, said)
        found = Judgement.together(self._judgements(subject, came_true, said, numbers))
        curve = reliability_curve(came_true, said, bins=bins)
        return CheckResult(found.verdict, found.reasons, numbers, (_table(curve),), (_plot(curve),))

    def _judgements(self, subject: Subject, came_true: Array, said: Array, numbers: Numbers) -> list[Judgement]:
        settings, found = self._settings, []
        if settings.ece_at_most is not None:
            curve = reliability_curve(came_true, said, bins=settings.bins)
            interval = ece_interval(curve, subject.rng("calibration"), subject.confidence, subject.resamples)
            numbers |= {"ece_low": interval.low, "ece_high": interval.high}
            # How many more rows would decide is not to be had: the error itself falls with their number.
            found.append(judge_bound("calibration error", interval, at_most=settings.ece_at_most))
        if settings.brier_at_most is not None:
            interval = bootstrap_metric(
                lambda truth, predicted: float(np.mean((predicted - truth) ** 2)),
                came_true,
                said,
                subject.rng("brier"),
                resamples=subject.resamples,
                level=2 * subject.confidence - 1,
                groups=subject.groups,
            ).interval
            numbers |= {"brier_low": interval.low, "brier_high": interval.high}
            found.append(judge_bound("Brier score", interval, at_most=settings.brier_at_most, rows=len(said)))
        if not found:
            found.append(Judgement(Verdict.SUCCESSFUL, ("reported, with no bound to keep",)))
        return found


def ece_interval(
    curve: tuple[ReliabilityBin, ...], rng: np.random.Generator, confidence: float, draws: int
) -> Interval:
    """One-sided bounds of the expected calibration error over the bins of a curve, each with `confidence`.

    With weights w, true gaps g and noise e, the error found is sum(w |g + e|), and the rows of a bin that come
    true are binomial. From below: it exceeds the true one by sum(w |e|) at most (triangle inequality), whose
    quantile is drawn. From above: |g + e| >= |g| + sign(g) e, so it falls short by a sum of independent noise
    only, normal with variance sum(w^2 p (1 - p) / n). The share p of a bin is Jeffreys' mean, so that a bin where
    all came true is not without noise. REQUIRES rows that are independent.
    """
    counts = np.array([each.rows for each in curve])
    observed = np.array([each.observed.estimate for each in curve])
    weights = counts / counts.sum()
    error = float(weights @ np.abs(np.array([each.predicted for each in curve]) - observed))
    shares = (observed * counts + 0.5) / (counts + 1)
    noise = np.abs(rng.binomial(counts, shares, (draws, len(counts))) / counts - shares) @ weights
    spread = math.sqrt(float(np.sum(weights**2 * shares * (1 - shares) / counts)))
    low = error - float(np.quantile(noise, confidence))
    high = error + NormalDist().inv_cdf(confidence) * spread
    return Interval(error, max(0.0, low), high, 2 * confidence - 1)


def _outcomes(subject: Subject) -> tuple[Array, Array]:
    """Whether what was given a probability came true, and that probability."""
    probabilities = subject.predictions.probabilities
    if probabilities is None:
        raise SalverError(
            "INVALID_SETTING",
            f"{subject.manifest.reference} gives no probabilities that calibration could be measured of",
            'name them with [outputs] probabilities = "..." or score = "...", or leave out [calibration]',
        )
    probabilities = np.clip(probabilities, 0.0, 1.0)
    if subject.truth.task is Task.BINARY:
        return (subject.truth.target == 1).astype(np.float64), probabilities[:, -1]
    return top_label(subject.truth.target, probabilities)


def _spiegelhalter(came_true: Array, said: Array) -> Numbers:
    try:
        found = spiegelhalter(came_true, said)
    except SalverError:
        return {"spiegelhalter_z": None, "spiegelhalter_p": None}
    return {"spiegelhalter_z": found.z, "spiegelhalter_p": found.p_value}


def _table(curve: tuple[ReliabilityBin, ...]) -> ResultTable:
    rows = tuple(
        (f"{each.low:.3g} to {each.high:.3g}", each.rows, each.predicted, each.observed.estimate) for each in curve
    )
    return ResultTable("Reliability", ("probabilities", "rows", "said, mean", "came true"), rows)


def _plot(curve: tuple[ReliabilityBin, ...]) -> Plot:
    series = Series(
        "bins",
        Mark.POINTS,
        tuple(each.predicted for each in curve),
        tuple(each.observed.estimate for each in curve),
        tuple(each.observed.low for each in curve),
        tuple(each.observed.high for each in curve),
    )
    return Plot("Reliability, with Wilson's 95 % intervals", "said", "came true", (series,), diagonal=True)
