"""The metrics of two versions on the same rows.

Areas under the curve are compared by DeLong's test, accuracy by McNemar's. Of any other metric the interval is a
paired bootstrap's and the p-value that of swapping the answers row by row; where rows come in groups, which may not
be swapped, the bootstrap draws whole groups and gives the p-value too.
"""

from __future__ import annotations

from typing import Final

from salver.evaluation.compared.findings import ComparisonSettings, Findings, PairResult, Part
from salver.evaluation.metrics.holdout import MetricCheck
from salver.evaluation.reports.records import CheckRecord
from salver.evaluation.reports.results import CheckResult, Mark, Plot, Role, Series
from salver.evaluation.subject.predictions import Predictions, Task
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.suite import MetricSettings, Suite
from salver.protocol.verdict import Verdict
from salver.stats.intervals import Interval
from salver.stats.metrics import Metric, Needs, metric
from salver.stats.paired import permutation_test

__all__ = ["compare_metrics"]

_BY_DEFAULT: Final = {
    Task.BINARY: ("roc_auc", "accuracy", "brier"),
    Task.MULTICLASS: ("accuracy", "f1_macro", "log_loss"),
    Task.REGRESSION: ("mae", "rmse", "r2"),
}
_UNITLESS: Final = frozenset({"r2", "explained_variance", "mape", "brier", "ece"})
"""Metrics of values or probabilities whose margin is absolute: they have no unit to be a share of."""


def compare_metrics(subject: Subject, suite: Suite, settings: ComparisonSettings) -> Findings:
    """Compare by the metrics of the suite, or where it names none by those that fit the task."""
    chosen = suite.metric or tuple(MetricSettings(name) for name in _fitting(subject))
    found = [_compared(subject, each, settings) for each in chosen]
    tests = tuple(test for test, _ in found)
    forest = CheckRecord.of("metrics", Role.OPTIMISING, CheckResult(Verdict.SUCCESSFUL, plots=(_forest(tests),)))
    return Findings(tests, (forest, *(check for _, check in found)))


def _fitting(subject: Subject) -> list[str]:
    """The usual metrics of the task, without those of probabilities where a version gives none."""
    answers = (subject.predictions, subject.rival_predictions)
    known = all(each is not None and each.probabilities is not None for each in answers)
    names = _BY_DEFAULT[subject.truth.task]
    return [name for name in names if known or metric(name).needs not in (Needs.SCORES, Needs.PROBABILITIES)]


def _compared(subject: Subject, wanted: MetricSettings, settings: ComparisonSettings) -> tuple[PairResult, CheckRecord]:
    measure = metric(wanted.name)
    # Without bounds: those are for suites; here only the two versions are held against each other.
    check = MetricCheck(MetricSettings(wanted.name, role=Role.OPTIMISING))
    result = check.run(subject)
    numbers = {name: value for name, value in result.numbers.items() if isinstance(value, int | float)}
    method, p_value = str(result.numbers["method"]), numbers["p_value"]
    if method == "paired bootstrap" and subject.groups is None:
        method, p_value = "paired bootstrap and permutation", _permuted(subject, measure, settings.permutations)
    sign = 1.0 if measure.higher_is_better else -1.0
    ends = sorted((sign * numbers["difference_low"], sign * numbers["difference_high"]))
    gain = Interval(sign * numbers["difference"], ends[0], ends[1], 2 * subject.confidence - 1)
    margin = wanted.margin or _margin(measure, numbers["rival"], settings.margin)
    tested = PairResult(
        Part.METRIC,
        wanted.name,
        wanted.role,
        numbers["value"],
        numbers["rival"],
        gain,
        margin,
        method,
        float(p_value),
        len(subject.rows),
    )
    told = result.numbers | {"margin": margin, "method": method, "p_value": p_value}
    told.pop("relation", None)
    return tested, CheckRecord.of(
        wanted.name, wanted.role, CheckResult(result.verdict, (), told, result.tables, result.plots)
    )


def _margin(measure: Metric, rival: float, margin: float) -> float:
    """The margin in the unit of the metric: errors have a unit, of which it is a share of the second's error."""
    plain = measure.name.partition("@")[0]
    has_unit = plain == "log_loss" or (measure.needs is Needs.VALUES and plain not in _UNITLESS)
    return margin * abs(rival) if has_unit else margin


def _permuted(subject: Subject, measure: Metric, permutations: int) -> float:
    assert subject.rival_predictions is not None
    classes = range(len(subject.truth.classes)) if subject.truth.task.is_classification else None
    return permutation_test(
        lambda truth, said: measure.measure(truth, said, classes=classes),
        subject.truth.target,
        _answers(measure, subject.predictions, subject.truth.task),
        _answers(measure, subject.rival_predictions, subject.truth.task),
        subject.rng(f"{measure.name} permutation"),
        permutations=permutations,
    ).p_value


def _answers(measure: Metric, predicted: Predictions, task: Task) -> Array:
    found = {Needs.LABELS: predicted.labels, Needs.VALUES: predicted.values}.get(measure.needs, predicted.probabilities)
    assert found is not None  # the check has measured it
    binary = task is Task.BINARY and measure.needs in (Needs.SCORES, Needs.PROBABILITIES)
    scores: Array = found[:, -1] if binary else found
    return scores


def _forest(tests: tuple[PairResult, ...]) -> Plot:
    """All gains on one scale, each in its margin; 0 for a margin of nothing is drawn in its own unit."""
    units = [each.margin or 1.0 for each in tests]
    places = tuple(float(index) for index in range(len(tests)))
    gains = Series(
        "gain with its bounds",
        Mark.POINTS,
        places,
        tuple(each.gain.estimate / unit for each, unit in zip(tests, units, strict=True)),
        tuple(each.gain.low / unit for each, unit in zip(tests, units, strict=True)),
        tuple(each.gain.high / unit for each, unit in zip(tests, units, strict=True)),
        tuple(each.name for each in tests),
    )
    ends = (-0.5, len(tests) - 0.5)
    borders = [Series(f"margin ({sign:+.0f})", Mark.LINE, ends, (sign, sign)) for sign in (1.0, -1.0)]
    return Plot("Gains of the first version, in margins", "", "gain / margin", (gains, *borders))
