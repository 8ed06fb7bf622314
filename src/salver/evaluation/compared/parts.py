"""Where two versions differ: in slices of the rows, in what their probabilities are worth, and row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec
import numpy as np

from salver.evaluation.compared.findings import ComparisonSettings, Findings, PairResult, Part
from salver.evaluation.metrics.calibration import CalibrationCheck
from salver.evaluation.reports.records import CheckRecord
from salver.evaluation.reports.results import Cell, CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.cutting import cut_column, select_rows
from salver.evaluation.subject.predictions import Predictions, Task, Truth
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.suite import CalibrationSettings, SliceSettings, Suite
from salver.protocol.verdict import Verdict
from salver.stats.bootstrap import bootstrap_difference
from salver.stats.calibration import calibration_error, top_label
from salver.stats.intervals import Interval, mean_interval, wilson
from salver.stats.metrics import metric
from salver.stats.paired import cohen_d_paired, mcnemar, permutation_test

__all__ = ["compare_agreement", "compare_calibration", "compare_slices"]

_SHOWN: Final = 10
_MOST_POINTS: Final = 500
_MOST_CLASSES: Final = 20


def compare_slices(subject: Subject, suite: Suite, settings: ComparisonSettings) -> Findings:
    """Compare what rows cost, slice by slice, in those that the suite declares; none where it declares none.

    Slices with fewer than `min_support` rows are not tested. Wrong labels are compared by McNemar's test, errors of a
    regression by swapping.
    """
    wanted = suite.slices
    if wanted is None or not (wanted.columns or wanted.where):
        return Findings()
    found, small = [], []
    for name, chosen in _slices(subject, wanted):
        if len(chosen) < wanted.min_support:
            small.append(name)
        else:
            found.append(_slice(subject, name, chosen, wanted.max_gap, settings.permutations))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (each.name, each.rows, each.first, each.second, each.gain.estimate, each.gain.low, each.gain.high, each.p_value)
        for each in sorted(found, key=lambda each: each.gain.estimate)
    )
    columns = ("slice", "rows", "mean loss, first", "second", "gain", "low", "high", "p")
    tables = (ResultTable("Slices, the greatest loss first", columns, rows),) if rows else ()
    reasons = [f"{len(found)} slices are tested"]
    if small:
        reasons.append(f"fewer than {wanted.min_support} rows, so not tested: {', '.join(small[:_SHOWN])}")
    verdict = Verdict.SUCCESSFUL if found and not small else Verdict.INCONCLUSIVE
    result = CheckResult(verdict, tuple(reasons), tables=tables)
    return Findings(tuple(found), (CheckRecord.of("slices", Role.SAFEGUARD, result),))


def _slices(subject: Subject, wanted: SliceSettings) -> list[tuple[str, Array]]:
    found = []
    for where, mask in zip(wanted.where, select_rows(subject.rows, wanted.where), strict=True):
        found.append((where.name, np.flatnonzero(mask)))
    for column in dict.fromkeys(wanted.columns):
        cells = cut_column(subject.rows, column, wanted.bins)
        found += [(name, np.flatnonzero(cells.codes == code)) for code, name in enumerate(cells.names)]
    return found


def _slice(subject: Subject, name: str, chosen: Array, margin: float, permutations: int) -> PairResult:
    first, second = (losses[chosen] for losses in _losses(subject))
    level = 2 * subject.confidence - 1
    if subject.truth.task.is_classification and subject.groups is None:
        pairs = mcnemar(1 - first, 1 - second, level=level)
        gain, method, p_value = pairs.difference, "McNemar, mid-p", pairs.mid_p
    else:
        gain, method, p_value = _resampled(subject, name, chosen, (first, second), permutations)
    means = float(first.mean()), float(second.mean())
    return PairResult(Part.SLICE, name, Role.SAFEGUARD, *means, gain, margin, method, p_value, len(chosen))


def _resampled(
    subject: Subject, name: str, chosen: Array, losses: tuple[Array, Array], permutations: int
) -> tuple[Interval, str, float]:
    """The gain in mean loss by a bootstrap; its p-value by swapping, or where rows come in groups the bootstrap's."""
    ones = np.ones(len(chosen))
    if np.array_equal(*losses):
        return Interval(0.0, 0.0, 0.0, 2 * subject.confidence - 1), "equal answers", 1.0
    groups = None if subject.groups is None else subject.groups[chosen]
    drawn = bootstrap_difference(
        lambda _, loss: -float(loss.mean()),
        ones,
        *losses,
        subject.rng(f"slice {name}"),
        resamples=subject.resamples,
        level=2 * subject.confidence - 1,
        groups=groups,
    )
    if groups is not None:
        return drawn.interval, "paired bootstrap", drawn.p_value
    swapped = permutation_test(
        lambda _, loss: float(loss.mean()),
        ones,
        *losses,
        subject.rng(f"slice {name} permutation"),
        permutations=permutations,
    )
    return drawn.interval, "paired bootstrap and permutation", swapped.p_value


def _losses(subject: Subject) -> tuple[Array, Array]:
    """What each row costs with either version: 1 for a wrong label, of a regression the error by the second's mean."""
    second = subject.rival_predictions
    assert second is not None
    if subject.truth.task.is_classification:
        assert subject.predictions.labels is not None
        assert second.labels is not None
        truth = subject.truth.target
        return (subject.predictions.labels != truth).astype(np.float64), (second.labels != truth).astype(np.float64)
    assert subject.predictions.values is not None
    assert second.values is not None
    errors = np.abs(subject.predictions.values - subject.truth.target), np.abs(second.values - subject.truth.target)
    unit = float(errors[1].mean()) or float(errors[0].mean()) or 1.0
    return errors[0] / unit, errors[1] / unit


def compare_calibration(subject: Subject, suite: Suite, settings: ComparisonSettings) -> Findings:
    """Compare the expected calibration errors, where both versions give probabilities."""
    rival = subject.rival_predictions
    assert rival is not None
    if subject.predictions.probabilities is None or rival.probabilities is None:
        return Findings()
    wanted = suite.calibration or CalibrationSettings(bins=10)
    bins = wanted.bins

    def error(_: Array, answers: Array) -> float:
        return calibration_error(answers[:, 0], answers[:, 1], bins=bins).ece

    answers = _outcomes(subject.truth, subject.predictions), _outcomes(subject.truth, rival)
    ones = np.ones(len(subject.rows))
    first, second = (error(ones, each) for each in answers)
    level = 2 * subject.confidence - 1
    if np.array_equal(*answers):
        gain, method, p_value = Interval(0.0, 0.0, 0.0, level), "equal answers", 1.0
    else:
        drawn = bootstrap_difference(
            lambda none, each: -error(none, each),
            ones,
            *answers,
            subject.rng("calibration difference"),
            resamples=subject.resamples,
            level=level,
            method="percentile",
            groups=subject.groups,
        )
        gain, method, p_value = drawn.interval, "paired bootstrap", drawn.p_value
        if subject.groups is None:
            swapping = subject.rng("calibration permutation")
            p_value = permutation_test(error, ones, *answers, swapping, permutations=settings.permutations).p_value
            method = "paired bootstrap and permutation"
    test = PairResult(
        Part.CALIBRATION, "ece", Role.SAFEGUARD, first, second, gain, settings.margin, method, p_value, len(ones)
    )
    return Findings((test,), (_reliability(subject, rival, bins),))


def _outcomes(truth: Truth, predicted: Predictions) -> Array:
    """Whether what was given a probability came true, and that probability: two columns."""
    assert predicted.probabilities is not None
    probabilities = np.clip(predicted.probabilities, 0.0, 1.0)
    if truth.task is Task.BINARY:
        return np.column_stack([(truth.target == 1).astype(np.float64), probabilities[:, -1]])
    return np.column_stack(top_label(truth.target, probabilities))


def _reliability(subject: Subject, rival: Predictions, bins: int) -> CheckRecord:
    """Both versions' calibration as suites report it, the curves in one plot."""
    check = CalibrationCheck(CalibrationSettings(bins=bins))
    assert subject.rival is not None
    named = {
        subject.manifest.reference: check.run(subject),
        subject.rival.manifest.reference: check.run(replace(subject, predictions=rival)),
    }
    series = [msgspec.structs.replace(each.plots[0].series[0], name=name) for name, each in named.items()]
    columns = ("version", "ece", "ece without its bias", "mce", "Brier", "reliability", "resolution")
    keys = ("ece", "ece_debiased", "mce", "brier", "reliability", "resolution")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(each.numbers[key] for key in keys)) for name, each in named.items()
    )
    plot = Plot("Reliability, with Wilson's 95 % intervals", "said", "came true", tuple(series), diagonal=True)
    table = ResultTable("Calibration", columns, rows)
    return CheckRecord.of(
        "calibration", Role.SAFEGUARD, CheckResult(Verdict.SUCCESSFUL, tables=(table,), plots=(plot,))
    )


def compare_agreement(subject: Subject, _: Suite, __: ComparisonSettings) -> Findings:
    """How often the two say the same, whoever is right, and where they differ. Nothing is tested."""
    rival = subject.rival_predictions
    assert rival is not None
    result = _same_labels(subject, rival) if subject.truth.task.is_classification else _same_values(subject, rival)
    return Findings((), (CheckRecord.of("agreement", Role.SAFEGUARD, result),))


def _same_labels(subject: Subject, rival: Predictions) -> CheckResult:
    first, second, truth, names = subject.predictions.labels, rival.labels, subject.truth.target, subject.truth.classes
    assert first is not None
    assert second is not None
    same = first == second
    share = wilson(int(same.sum()), len(same))
    right = first == truth, second == truth
    counts = {
        "both right": int((right[0] & right[1]).sum()),
        "only the first": int((right[0] & ~right[1]).sum()),
        "only the second": int((~right[0] & right[1]).sum()),
        "both wrong": int((~right[0] & ~right[1]).sum()),
    }
    tables = [ResultTable("Who is right", ("rows", "count"), tuple(counts.items()))]
    if len(names) <= _MOST_CLASSES:
        crossed = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(crossed, (first, second), 1)
        body: tuple[tuple[Cell, ...], ...] = tuple(
            (name, *map(int, row)) for name, row in zip(names, crossed, strict=True)
        )
        tables.append(ResultTable("Said", ("first", *(f"second {name}" for name in names)), body))
    differing = tuple(
        (int(row), names[truth[row]], names[first[row]], names[second[row]]) for row in np.flatnonzero(~same)[:_SHOWN]
    )
    if differing:
        shown = f"Where they differ, the first {len(differing)} of {int((~same).sum())}"
        tables.append(ResultTable(shown, ("row evaluated", "true", "first", "second"), differing))
    kappa = metric("cohen_kappa").measure(first, second, classes=range(len(names))) if len(set(first)) > 1 else None
    numbers: dict[str, str | int | float | None] = {
        "agreement": share.estimate,
        "low": share.low,
        "high": share.high,
        "kappa": kappa,
        "differing_rows": int((~same).sum()),
    }
    said = f"they say the same of {share.estimate:.1%} of the rows [{share.low:.1%}, {share.high:.1%}]"
    return CheckResult(Verdict.SUCCESSFUL, (said,), numbers, tuple(tables), _scatter(subject, rival))


def _scatter(subject: Subject, rival: Predictions) -> tuple[Plot, ...]:
    """What either gives the positive class, row by row."""
    first, second = subject.predictions.score(), rival.score()
    if first is None or second is None or subject.truth.task is not Task.BINARY:
        return ()
    return (_points(subject, first, second, "Probability of the positive class", bounded=True),)


def _points(subject: Subject, first: Array, second: Array, title: str, *, bounded: bool) -> Plot:
    assert subject.rival is not None
    some = np.unique(np.linspace(0, len(first) - 1, _MOST_POINTS).astype(int))
    series = Series("rows", Mark.POINTS, tuple(second[some].tolist()), tuple(first[some].tolist()))
    labels = subject.rival.manifest.reference, subject.manifest.reference
    return Plot(title, *labels, (series,), diagonal=bounded)


def _same_values(subject: Subject, rival: Predictions) -> CheckResult:
    """Limits of agreement (Bland and Altman 1986, Lancet 327, 307): between them lie 95 % of the differences."""
    first, second = subject.predictions.values, rival.values
    assert first is not None
    assert second is not None
    differences = first - second
    mean, spread = mean_interval(differences), float(differences.std(ddof=1))
    constant = not (first.std() > 0 and second.std() > 0)
    numbers: dict[str, str | int | float | None] = {
        "mean_difference": mean.estimate,
        "low": mean.low,
        "high": mean.high,
        "limit_low": mean.estimate - 1.96 * spread,
        "limit_high": mean.estimate + 1.96 * spread,
        "correlation": None if constant else float(np.corrcoef(first, second)[0, 1]),
        "cohen_d": cohen_d_paired(first, second) if spread > 0 else 0.0,
    }
    said = (
        f"the first says {mean.estimate:+.4g} more on average; 95 % of the differences are between "
        f"{numbers['limit_low']:.4g} and {numbers['limit_high']:.4g}"
    )
    return CheckResult(
        Verdict.SUCCESSFUL, (said,), numbers, plots=(_points(subject, first, second, "Values", bounded=False),)
    )
