"""Whether groups of people fare alike: rates by group, and how far apart they may be.

Disparities are those of fairlearn, judged with their intervals. A group with too few rows for a rate is not judged
by it, and says so: a small group is where harm hides, so that is inconclusive, not fair.
"""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np

from salver.evaluation.behaviour.disparities import (
    DISPARITIES,
    RATES,
    Outcomes,
    disparity,
    draw_rates,
    group_rates,
)
from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.cutting import Cells, cut_column
from salver.evaluation.subject.predictions import class_name
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import Disparity, FairnessSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.intervals import Interval, wilson
from salver.stats.margins import judge_bound

__all__ = ["FairnessCheck"]

_MOST_GROUPS: Final = 30
Numbers = dict[str, str | int | float | None]


class FairnessCheck:
    """Rates and disparities of the groups of one column, or of the meetings of two."""

    role = Role.SAFEGUARD

    def __init__(self, settings: FairnessSettings, columns: tuple[str, ...]) -> None:
        self.name = f"fairness {' and '.join(columns)}"
        self._settings = settings
        self._columns = columns

    @classmethod
    def of(cls, settings: FairnessSettings) -> list[FairnessCheck]:
        """One check for each column, and for each two where intersections are looked at."""
        columns = dict.fromkeys(settings.columns)
        pairs = itertools.combinations(columns, 2) if settings.intersections else ()
        return [cls(settings, each) for each in [*((name,) for name in columns), *pairs]]

    def run(self, subject: Subject) -> CheckResult:
        """Rate every group, and hold the disparities against their bounds."""
        outcomes, cells = self._outcomes(subject), self._cells(subject)
        inside = cells.codes >= 0
        if not inside.all():
            outcomes = Outcomes(outcomes.truth[inside], outcomes.said[inside], outcomes.right[inside])
        present, groups = np.unique(cells.codes[inside], return_inverse=True)
        names = tuple(cells.names[int(code)] for code in present)
        if len(names) < 2:
            return CheckResult(Verdict.INCONCLUSIVE, (f"all rows are of one group: {', '.join(names)}",))
        rates = group_rates(outcomes, groups, names)
        numbers: Numbers = {"groups": len(names)}
        clusters = None if subject.groups is None else np.unique(subject.groups[inside], return_inverse=True)[1]
        found = [self._judged(each, outcomes, groups, names, clusters, subject, numbers) for each in self._asked()]
        # What is only reported stands in the numbers; its sentences would hide those that matter.
        bounded = len(self._settings.at_most) + len(self._settings.at_least)
        judged = Judgement.together(found[:bounded] or found)
        sizes = np.bincount(groups, minlength=len(names))
        tables = (_table(names, sizes, rates),)
        return CheckResult(judged.verdict, judged.reasons, numbers, tables, (_plot(names, sizes, rates),))

    def _asked(self) -> list[Disparity]:
        """The disparities that have a bound; all others are reported too, after them."""
        bounded = [*self._settings.at_most, *self._settings.at_least]
        return bounded + [name for name in DISPARITIES if name not in bounded]

    def _judged(
        self, name: Disparity, outcomes: Outcomes, groups: Array, names: tuple[str, ...], clusters: Array | None,
        subject: Subject, numbers: Numbers,
    ) -> Judgement:  # fmt: skip
        least, confidence = self._settings.min_support, subject.confidence
        rates = [
            draw_rates(
                outcomes, groups, names, rate, clusters=clusters, min_support=least, resamples=subject.resamples,
                tail=1 - confidence, rng=subject.rng(f"{self.name} {rate}"),
            )
            for rate in DISPARITIES[name]
        ]  # fmt: skip
        at_most, at_least = self._settings.at_most.get(name), self._settings.at_least.get(name)
        is_judged = at_most is not None or at_least is not None
        missing = [(each.rate, group) for each in rates for group in names if group not in each.groups]
        if any(len(each.groups) < 2 for each in rates):
            numbers[name] = None
            reason = f"{name}: fewer than two groups have {least} rows for {' and '.join(DISPARITIES[name])}"
            return Judgement(Verdict.INCONCLUSIVE if is_judged else Verdict.SUCCESSFUL, (reason,))
        interval, farthest = disparity(name, rates, confidence)
        numbers |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
        if not is_judged:
            return Judgement(Verdict.SUCCESSFUL, (_reported(name, interval, farthest),))
        found = judge_bound(name, interval, at_most=at_most, at_least=at_least, rows=len(groups))
        found = Judgement(found.verdict, tuple(f"{reason}; farthest apart: {farthest}" for reason in found.reasons))
        if not missing:
            return found
        rate, group = missing[0]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        small = Judgement(Verdict.INCONCLUSIVE, (f"fewer than {least} rows for {rate} of {group}{more}",))
        return Judgement.together([found, small])

    def _cells(self, subject: Subject) -> Cells:
        cut = [cut_column(subject.rows, name, self._settings.bins) for name in self._columns]
        cells = cut[0] if len(cut) == 1 else cut[0].crossed(cut[1])
        if len(np.unique(cells.codes)) > _MOST_GROUPS:
            raise SalverError(
                "INVALID_SETTING", f"{self.name}: more than {_MOST_GROUPS} groups", "use a column with fewer values"
            )
        return cells

    def _outcomes(self, subject: Subject) -> Outcomes:
        truth, labels = subject.truth, subject.predictions.labels
        if not truth.task.is_classification or labels is None:
            raise SalverError("INVALID_SETTING", "fairness is judged by labels, and a regression has none", "leave it")
        wanted = len(truth.classes) - 1
        if self._settings.favourable is not None:
            name = class_name(self._settings.favourable)
            if name not in truth.classes:
                known = ", ".join(truth.classes[:20])
                raise SalverError("INVALID_SETTING", f"fairness.favourable names {name[:80]!r}", f"there are {known}")
            wanted = truth.classes.index(name)
        elif len(truth.classes) > 2:
            raise SalverError(
                "INVALID_SETTING",
                "fairness does not say which class is favourable",
                'say [fairness] favourable = "..."',
            )
        right = (labels == truth.target).astype(np.int64)
        return Outcomes((truth.target == wanted).astype(np.int64), (labels == wanted).astype(np.int64), right)


def _reported(name: str, interval: Interval, farthest: str) -> str:
    return f"{name} {interval.estimate:.4g} [{interval.low:.4g}, {interval.high:.4g}], reported only: {farthest}"


def _table(names: tuple[str, ...], sizes: Array, rates: dict[str, list[float]]) -> ResultTable:
    rows = tuple(
        (name, int(sizes[index]), *(_known(rates[rate][index]) for rate in RATES)) for index, name in enumerate(names)
    )
    return ResultTable("Rates by group", ("group", "rows", *(rate.replace("_", " ") for rate in RATES)), rows)


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _plot(names: tuple[str, ...], sizes: Array, rates: dict[str, list[float]]) -> Plot:
    """Selection rate and accuracy of each group, the groups numbered as in the table."""
    series = []
    for shift, rate in ((-0.1, "selection_rate"), (0.1, "accuracy")):
        found = [wilson(round(value * int(size)), int(size)) for value, size in zip(rates[rate], sizes, strict=True)]
        series.append(
            Series(
                rate.replace("_", " "),
                Mark.POINTS,
                tuple(index + 1 + shift for index in range(len(names))),
                tuple(each.estimate for each in found),
                tuple(each.low for each in found),
                tuple(each.high for each in found),
            )
        )
    return Plot("Groups, with Wilson's 95 % intervals", "group, as in the table", "rate", tuple(series))
