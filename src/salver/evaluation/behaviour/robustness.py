"""How much of a version's accuracy is left while its rows are disturbed more and more.

Each level disturbs the same rows, so what is lost is a paired difference with an interval. A bound is kept when it
holds at every level; it is broken when one level breaks it beyond chance, corrected for their number. A row that is
refused is a row that is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from salver.evaluation.behaviour.adversary import attack
from salver.evaluation.behaviour.invariance import sample_rows
from salver.evaluation.behaviour.perturb_tables import Change, missing_cells, noisy, quantised, spreads_of
from salver.evaluation.behaviour.perturb_text import with_typos
from salver.evaluation.behaviour.perturbations import is_text, measured_features, text_features
from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.answers import Answers, ask_each, losses_of
from salver.evaluation.subject.predictions import Predictions, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import RobustnessSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.bootstrap import bootstrap_metric
from salver.stats.intervals import Interval, mean_interval, wilson
from salver.stats.margins import judge_bound
from salver.stats.paired import mcnemar

__all__ = ["RobustnessCheck"]

_LEVELS: Final[Mapping[str, tuple[float, ...]]] = {
    "noise": (0.01, 0.05, 0.1, 0.2, 0.5),
    "quantised": (0.05, 0.1, 0.25, 0.5),
    "missing": (0.02, 0.05, 0.1, 0.2),
    "typos": (0.05, 0.1, 0.2, 0.4),
    "adversarial": (0.01, 0.02, 0.05, 0.1),
}
_NUMERIC: Final = {"noise": noisy, "quantised": quantised, "missing": missing_cells}
_UNITS: Final = {"missing": "share of cells emptied", "typos": "share of words with a typo"}


class RobustnessCheck:
    """One kind of disturbance, at each of its levels."""

    role = Role.SAFEGUARD

    def __init__(self, settings: RobustnessSettings) -> None:
        self.name = f"robustness {settings.kind}"
        self._settings = settings
        self._levels = tuple(sorted(settings.levels or _LEVELS[settings.kind]))

    def run(self, subject: Subject) -> CheckResult:
        """Disturb, ask, and compare with what was said of the rows as they are."""
        chosen = sample_rows(subject, self._settings.rows, subject.rng(self.name))
        truth, clean = (
            subject.truth.take(chosen),
            losses_of(subject.predictions.take(chosen), subject.truth.take(chosen)),
        )
        measured = self._attacked if self._settings.kind == "adversarial" else self._disturbed
        losses, refused = measured(subject, chosen)
        drops = [self._drop(subject, clean, each, truth) for each in losses]
        found = self._judged(drops, len(clean))
        numbers: dict[str, str | int | float | None] = {
            "rows": len(chosen),
            "clean": _kept(clean, truth).estimate,
            "worst": max(each.estimate for each in drops),
            "drop_at_most": self._settings.drop_at_most,
            "refused": max(refused),
        }
        table = self._table(losses, drops, refused, truth)
        return CheckResult(found.verdict, found.reasons, numbers, (table,), (self._plot(clean, losses, truth),))

    def _disturbed(self, subject: Subject, chosen: Array) -> tuple[list[Array], list[int]]:
        """What each row costs at each level, and how many were refused there."""
        rows, columns = subject.rows.take(chosen), self._columns(subject)
        spreads = spreads_of(subject.rows, columns)
        losses, refused = [], []
        for level in self._levels:
            rng = subject.rng(f"{self.name} {level:g}")
            changed = {
                name: self._change(rows.column(name), Change(level, spread=spreads[name]), rng) for name in columns
            }
            answers: Answers = ask_each(subject, rows.replaced(**changed))
            losses.append(losses_of(answers.predictions, subject.truth.take(chosen)))
            refused.append(int(answers.refused.sum()))
        return losses, refused

    def _change(self, column: Array, change: Change, rng: np.random.Generator) -> Array:
        if self._settings.kind != "typos":
            return _NUMERIC[self._settings.kind](column, change, rng)
        texts = np.empty(len(column), dtype=object)
        # A level below one word of a text means that only so many of the texts have a typo.
        texts[:] = [
            text
            if text is None or rng.random() > change.amount * len(text.split())
            else with_typos(text, change.amount, rng)
            for text in column
        ]
        return texts

    def _columns(self, subject: Subject) -> tuple[str, ...]:
        kind = self._settings.kind
        if self._settings.columns:
            found = self._settings.columns
        elif kind == "typos":
            found = text_features(subject)
        else:
            found = subject.features if kind == "missing" else measured_features(subject)
        wrong = [
            name for name in found if kind != "missing" and is_text(subject.rows.column(name)) != (kind == "typos")
        ]
        if not found or wrong:
            what = f"column {wrong[0][:80]!r} is not of that kind" if wrong else "no feature is of that kind"
            raise SalverError("INVALID_SETTING", f"{self.name}: {what}", "leave it out, or name columns")
        return found

    def _attacked(self, subject: Subject, chosen: Array) -> tuple[list[Array], list[int]]:
        """What each row costs within each reach; what hurt within a small one hurts within a larger."""
        rows, columns, truth = subject.rows.take(chosen), self._columns(subject), subject.truth.take(chosen)
        spreads = [spreads_of(subject.rows, columns)[name] for name in columns]
        origin = np.column_stack([rows.numbers(name) for name in columns])
        limits = np.array([each.low for each in spreads]), np.array([each.high for each in spreads])
        deviation = np.array([each.deviation for each in spreads])
        worst = losses_of(subject.predictions.take(chosen), truth)
        losses = []
        for level in self._levels:
            alive = np.flatnonzero(worst == 0) if truth.task.is_classification else np.arange(len(chosen))
            if len(alive):
                found = self._worst_within(
                    subject, rows.take(alive), columns, origin[alive], level * deviation, limits, truth.take(alive)
                )
                worst = worst.copy()
                worst[alive] = np.maximum(worst[alive], found)
            losses.append(worst)
        return losses, [0] * len(losses)

    def _worst_within(
        self, subject: Subject, rows: Rows, columns: tuple[str, ...], origin: Array, reach: Array,
        limits: tuple[Array, Array], truth: Truth,
    ) -> Array:  # fmt: skip
        def moved(some: Array, places: Array) -> Rows:
            return rows.take(some).replaced(
                **{name: _settled(rows.column(name)[some], places[:, at]) for at, name in enumerate(columns)}
            )

        def margins(some: Array, places: Array) -> Array:
            answers = ask_each(subject, moved(some, places))
            return np.where(answers.refused, np.inf, _margin(answers.predictions, truth.take(some)))

        rng = subject.rng(f"{self.name} {float(reach.sum()):g}")
        places, _ = attack(margins, origin, reach, limits, self._settings.queries, rng)
        answers = ask_each(subject, moved(np.arange(len(rows)), places))
        return np.where(answers.refused, 0.0, losses_of(answers.predictions, truth))

    def _drop(self, subject: Subject, clean: Array, disturbed: Array, truth: Truth) -> Interval:
        """What is lost at one level; its low end is corrected for the number of levels."""
        tail = 1 - subject.confidence
        wide, narrow = (
            self._interval(subject, clean, disturbed, truth, 1 - 2 * each) for each in (tail / len(self._levels), tail)
        )
        return Interval(narrow.estimate, wide.low, narrow.high, narrow.level)

    def _interval(self, subject: Subject, clean: Array, disturbed: Array, truth: Truth, level: float) -> Interval:
        if truth.task.is_classification:
            return mcnemar(1 - clean, 1 - disturbed, level=level).difference
        scale = float(clean.mean()) or float(truth.target.std()) or 1.0
        drawn = bootstrap_metric(
            lambda one, other: float(other.mean() - one.mean()) / scale,
            clean, disturbed, subject.rng(f"{self.name} interval"), resamples=subject.resamples, level=level,
        )  # fmt: skip
        return drawn.interval

    def _judged(self, drops: list[Interval], rows: int) -> Judgement:
        at_most = self._settings.drop_at_most
        named = [f"{self._settings.kind} {level:g}: loss" for level in self._levels]
        if at_most is None:
            worst = int(np.argmax([each.estimate for each in drops]))
            return Judgement(Verdict.SUCCESSFUL, (f"{named[worst]} {drops[worst].estimate:.4g}, reported only",))
        found = [judge_bound(name, drop, at_most=at_most, rows=rows) for name, drop in zip(named, drops, strict=True)]
        judged = Judgement.together(found)
        if judged.verdict is Verdict.SUCCESSFUL:
            return Judgement(judged.verdict, (judged.reasons[-1],))
        return judged

    def _table(self, losses: list[Array], drops: list[Interval], refused: list[int], truth: Truth) -> ResultTable:
        kept = "accuracy" if truth.task.is_classification else "mean error"
        rows = tuple(
            (level, _kept(each, truth).estimate, drop.estimate, drop.low, drop.high, gone)
            for level, each, drop, gone in zip(self._levels, losses, drops, refused, strict=True)
        )
        return ResultTable("By level", (self._unit(), kept, "loss", "low", "high", "refused"), rows)

    def _plot(self, clean: Array, losses: list[Array], truth: Truth) -> Plot:
        levels, found = (0.0, *self._levels), [_kept(each, truth) for each in (clean, *losses)]
        kept = "accuracy" if truth.task.is_classification else "mean error"
        series = [
            Series(
                kept, Mark.POINTS, levels, tuple(each.estimate for each in found),
                tuple(each.low for each in found), tuple(each.high for each in found),
            )
        ]  # fmt: skip
        if self._settings.drop_at_most is not None:
            drop, start = self._settings.drop_at_most, found[0].estimate
            allowed = start - drop if truth.task.is_classification else start * (1 + drop)
            series.append(Series("allowed", Mark.LINE, (levels[0], levels[-1]), (allowed, allowed)))
        return Plot(f"{kept.capitalize()} under {self._settings.kind}", self._unit(), kept, tuple(series))

    def _unit(self) -> str:
        return _UNITS.get(self._settings.kind, "standard deviations")


def _settled(column: Array, moved: Array) -> Array:
    """Whole numbers move by whole numbers, and not beyond where they were to be."""
    if column.dtype.kind in "iu":
        return (column + np.fix(moved - column)).astype(column.dtype)
    return moved


def _margin(predicted: Predictions, truth: Truth) -> Array:
    """By how much the true class leads the next one; of a regression the error, negative and never below 0 of it."""
    if predicted.values is not None:
        # Above 0 wherever it stands, so that the search goes on.
        error: Array = 1 / (1 + np.abs(predicted.values - truth.target))
        return error
    if predicted.probabilities is None:
        assert predicted.labels is not None
        return np.where(predicted.labels == truth.target, 1.0, -1.0)
    rows = np.arange(len(truth.target))
    true = predicted.probabilities[rows, truth.target]
    others = predicted.probabilities.copy()
    others[rows, truth.target] = -np.inf
    lead: Array = true - others.max(axis=1)
    assert predicted.labels is not None
    return np.where(predicted.labels == truth.target, np.maximum(lead, 0.0), np.minimum(lead, -1e-9))


def _kept(losses: Array, truth: Truth) -> Interval:
    """Accuracy, or the mean error, with its interval."""
    if truth.task.is_classification:
        return wilson(int((losses == 0).sum()), len(losses))
    if len(losses) < 2:
        return Interval(float(losses.mean()), 0.0, float("inf"))
    return mean_interval(losses)
