"""Metrics on the rows held out, against a bound and against another version on the same rows.

A bound is held by a whole one-sided confidence bound, not by the estimate: few rows are *inconclusive*, and
neither pass by luck nor fail by it. Two versions answer the same rows, so they are compared in pairs: areas
under the curve by DeLong's test, accuracy by McNemar's, anything else by a paired bootstrap, and a version is
no worse when the bound of the difference stays within the margin.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Series
from salver.evaluation.subject.predictions import Predictions, Task
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.suite import MetricSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.bootstrap import BootstrapResult, bootstrap_difference, bootstrap_metric
from salver.stats.delong import auc_interval, compare_aucs
from salver.stats.intervals import Interval, wilson
from salver.stats.libraries import sklearn_metrics
from salver.stats.margins import Comparison, compare, judge_bound
from salver.stats.metrics import Metric, Needs, metric
from salver.stats.paired import mcnemar
from salver.stats.power import in_words, more_for_bound, more_for_share

__all__ = ["MetricCheck"]

_MOST_SHOWN_CLASSES: Final = 20
_CURVE_POINTS: Final = 100


class _Difference(msgspec.Struct, frozen=True):
    """Candidate less rival, by which method, and how probable without a difference."""

    interval: Interval
    method: str
    p_value: float


class MetricCheck:
    """One metric of the held-out rows."""

    def __init__(self, settings: MetricSettings) -> None:
        self.name = settings.name
        self.role = settings.role
        self._settings = settings
        self._metric = _metric(settings)

    def run(self, subject: Subject) -> CheckResult:
        """Measure, and judge by what the suite asks."""
        settings = self._settings
        measured = self._measured(subject)
        numbers: dict[str, str | int | float | None] = {
            "value": measured.estimate,
            "low": measured.low,
            "high": measured.high,
            "rows": len(subject.rows),
        }
        found: list[Judgement] = []
        if settings.at_least is not None or settings.at_most is not None:
            found.append(self._held(subject, measured, numbers))
        if subject.rival is not None:
            found += self._compared(subject, numbers)
        elif settings.not_worse_than:
            found.append(
                Judgement(Verdict.SUCCESSFUL, (f"nothing to compare with: no version is in {settings.not_worse_than}",))
            )
        if not found:
            reason = f"{settings.name} {measured.estimate:.4g} [{measured.low:.4g}, {measured.high:.4g}], reported only"
            found.append(Judgement(Verdict.SUCCESSFUL, (reason,)))
        judged = Judgement.together(found)
        return CheckResult(judged.verdict, judged.reasons, numbers, self._tables(subject), self._plots(subject))

    def _value(self, subject: Subject, truth: Array, predicted: Array) -> float:
        classes = range(len(subject.truth.classes)) if subject.truth.task.is_classification else None
        return self._metric.measure(truth, predicted, classes=classes)

    def _measured(self, subject: Subject) -> Interval:
        """The metric with the interval whose two ends are one-sided bounds."""
        truth, predicted = subject.truth.target, self._wanted(subject, subject.predictions)
        value, level = self._value(subject, truth, predicted), 2 * subject.confidence - 1
        if subject.groups is None and self._is_auc(subject):
            return auc_interval(truth, predicted, level=level)
        if self._is_share(subject):
            return wilson(int((truth == predicted).sum()), len(truth), level=level)
        rng = subject.rng(self.name)
        drawn = bootstrap_metric(
            lambda some, said: self._value(subject, some, said),
            truth,
            predicted,
            rng,
            resamples=subject.resamples,
            level=level,
            groups=subject.groups,
        )
        interval = _widened(drawn, value, subject)
        # Nothing is better than 1, where more is better, and no error is less than 0.
        if self._metric.higher_is_better:
            return msgspec.structs.replace(interval, high=max(value, min(interval.high, 1.0)))
        return msgspec.structs.replace(interval, low=min(value, max(interval.low, 0.0)))

    def _held(self, subject: Subject, measured: Interval, numbers: dict[str, Any]) -> Judgement:
        """Hold the metric against its bound."""
        settings, rows = self._settings, numbers["rows"]
        bound = settings.at_most if settings.at_least is None else settings.at_least
        assert bound is not None
        numbers["bound"] = bound
        plan = more_for_share if self._is_share(subject) else more_for_bound
        judged = judge_bound(
            settings.name, measured, at_least=settings.at_least, at_most=settings.at_most, rows=rows, plan=plan
        )
        if judged.verdict is Verdict.INCONCLUSIVE:
            numbers["more_rows"] = plan(measured, bound, rows)
        return judged

    def _compared(self, subject: Subject, numbers: dict[str, Any]) -> list[Judgement]:
        """Hold the difference to the rival against the margin; judged only where the suite asks for it."""
        assert subject.rival is not None
        assert subject.rival_predictions is not None
        settings, reference = self._settings, subject.rival.manifest.reference
        rival = self._wanted(subject, subject.rival_predictions)
        difference = self._difference(subject, rival)
        found: Comparison = compare(
            difference.interval, settings.margin, higher_is_better=self._metric.higher_is_better
        )
        numbers |= {
            "rival": self._value(subject, subject.truth.target, rival),
            "difference": difference.interval.estimate,
            "difference_low": difference.interval.low,
            "difference_high": difference.interval.high,
            "p_value": difference.p_value,
            "margin": settings.margin,
            "relation": str(found.relation),
            "method": difference.method,
        }
        if not settings.not_worse_than:
            return []
        gain = found.gain
        known = {Verdict.SUCCESSFUL: "not worse", Verdict.FAILED: "worse"}.get(found.not_worse, "maybe worse")
        reason = (
            f"{known} than {reference}: gain {gain.estimate:+.4g} [{gain.low:.4g}, {gain.high:.4g}], "
            f"margin {settings.margin:g} ({difference.method}, p {difference.p_value:.2g})"
        )
        if found.not_worse is Verdict.INCONCLUSIVE:
            more = numbers["difference_more_rows"] = more_for_bound(gain, -settings.margin, numbers["rows"])
            reason += in_words(more)
        return [Judgement(found.not_worse, (reason,))]

    def _difference(self, subject: Subject, rival: Array) -> _Difference:
        truth, mine = subject.truth.target, self._wanted(subject, subject.predictions)
        level = 2 * subject.confidence - 1
        if np.array_equal(mine, rival):
            return _Difference(Interval(0.0, 0.0, 0.0, level), "equal answers", 1.0)
        if subject.groups is None and self._is_auc(subject):
            areas = compare_aucs(truth, mine, rival, level=level)
            return _Difference(areas.difference, "DeLong", areas.p_value)
        if self._is_share(subject):
            pairs = mcnemar(truth == mine, truth == rival, level=level)
            return _Difference(pairs.difference, "McNemar, mid-p", pairs.mid_p)
        drawn = bootstrap_difference(
            lambda some, said: self._value(subject, some, said),
            truth,
            mine,
            rival,
            subject.rng(f"{self.name} difference"),
            resamples=subject.resamples,
            level=level,
            groups=subject.groups,
        )
        interval = _widened(drawn, drawn.interval.estimate, subject)
        return _Difference(interval, "paired bootstrap", drawn.p_value)

    def _is_share(self, subject: Subject) -> bool:
        """Whether it is a share of rows that are independent of each other."""
        return subject.groups is None and self._metric.name == "accuracy"

    def _is_auc(self, subject: Subject) -> bool:
        return self._metric.name == "roc_auc" and subject.truth.task is Task.BINARY

    def _wanted(self, subject: Subject, predicted: Predictions) -> Array:
        """The predictions that the metric takes; raises INVALID_SETTING where the version gives none."""
        needs, found = self._metric.needs, None
        if needs is Needs.LABELS:
            found = predicted.labels
        elif needs is Needs.VALUES:
            found = predicted.values
        elif predicted.probabilities is not None:
            binary = subject.truth.task is Task.BINARY
            found = predicted.probabilities[:, -1] if binary else predicted.probabilities
        if found is None:
            raise SalverError(
                "INVALID_SETTING",
                f"metric {self._metric.name!r} needs {needs}, and none are known of {subject.manifest.reference}",
                "name the output in section [outputs] of the suite",
            )
        return found

    def _tables(self, subject: Subject) -> tuple[ResultTable, ...]:
        classes, labels = subject.truth.classes, subject.predictions.labels
        if self._metric.name != "accuracy" or labels is None or len(classes) > _MOST_SHOWN_CLASSES:
            return ()
        counts = np.zeros((len(classes), len(classes)), dtype=int)
        np.add.at(counts, (subject.truth.target, labels), 1)
        rows: tuple[tuple[str | int, ...], ...] = tuple(
            (name, *map(int, row)) for name, row in zip(classes, counts, strict=True)
        )
        return (ResultTable("Confusion", ("true", *(f"said {name}" for name in classes)), rows),)

    def _plots(self, subject: Subject) -> tuple[Plot, ...]:
        if not self._is_auc(subject):
            return ()
        series = [_curve(subject.manifest.reference, subject.truth.target, subject.predictions)]
        if subject.rival is not None and subject.rival_predictions is not None:
            reference = subject.rival.manifest.reference
            series.append(_curve(reference, subject.truth.target, subject.rival_predictions))
        return (Plot("ROC", "false positive rate", "true positive rate", tuple(series), diagonal=True),)


def _metric(settings: MetricSettings) -> Metric:
    """The metric of these settings; raises INVALID_SETTING for one that does not exist or whose bound is no bound."""
    try:
        found = metric(settings.name)
    except SalverError as error:
        raise SalverError("INVALID_SETTING", error.message, error.remedy) from None
    if found.needs is Needs.RANKINGS:
        raise SalverError(
            "INVALID_SETTING",
            f"metric {settings.name!r} ranks documents of queries, and a suite has rows",
            "leave it out",
        )
    wrong = "at_most" if found.higher_is_better else "at_least"
    if getattr(settings, wrong) is not None:
        better = "higher" if found.higher_is_better else "lower"
        right = "at_least" if wrong == "at_most" else "at_most"
        raise SalverError(
            "INVALID_SETTING", f"metric {settings.name!r} has {wrong}, and {better} is better", f"say {right}"
        )
    return found


def _widened(drawn: BootstrapResult, estimate: float, subject: Subject) -> Interval:
    """The interval of a bootstrap; where no draw differed, what so many rows without a difference can tell.

    A perfect result on a few rows is drawn again as a perfect one, and its interval has no width. So many rows
    without an exception still leave room for a share of them (Wilson's bound of n of n).
    """
    if drawn.standard_error > 0:
        return drawn.interval
    units = len(subject.rows) if subject.groups is None else len(np.unique(subject.groups))
    room = 1 - wilson(units, units, level=drawn.interval.level).low
    if not subject.truth.task.is_classification:
        room *= float(np.ptp(subject.truth.target))
    return Interval(estimate, estimate - room, estimate + room, drawn.interval.level)


def _curve(reference: str, truth: Array, predicted: Predictions) -> Series:
    score = predicted.score()
    assert score is not None
    false_rate, true_rate, _ = sklearn_metrics().roc_curve(truth, score)
    some = np.unique(np.linspace(0, len(false_rate) - 1, _CURVE_POINTS).astype(int))
    return Series(reference, Mark.LINE, tuple(false_rate[some].tolist()), tuple(true_rate[some].tolist()))
