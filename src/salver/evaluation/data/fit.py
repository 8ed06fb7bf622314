"""Whether a version learned too little, or by heart.

Too little: a simple model, trained here without any care, does better. By heart: it does much better on its training
rows than on those held out. Too good to be true: it makes next to no errors where simple models make many, which
happens with an excellent version and with one that has seen the rows, so it is inconclusive until someone has looked.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from salver.evaluation.data.learning_curve import learning_curve
from salver.evaluation.data.simple_models import SimpleModel, cross_fitted, simple_models
from salver.evaluation.reports.results import CheckResult, Plot, ResultTable, Role
from salver.evaluation.subject.answers import ask_each, losses_of, score_of
from salver.evaluation.subject.predictions import Predictions, Task, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.subject.training_rows import known_rows, training_rows
from salver.evaluation.suites.sections import FitSettings
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.bootstrap import bootstrap_metric
from salver.stats.delong import area_under_curve, compare_aucs
from salver.stats.intervals import Interval, newcombe_difference, quantile_z
from salver.stats.margins import judge_bound
from salver.stats.paired import mcnemar

__all__ = ["BaselineCheck", "OverfitCheck"]

_FEWEST_ROWS: Final = 20
Numbers = dict[str, str | int | float | None]


class BaselineCheck:
    """The version beside simple models on the same rows."""

    name = "baseline"
    role = Role.SAFEGUARD

    def __init__(self, settings: FitSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Train simple models, and compare the best of them with the version."""
        training, truth = _learned(subject, self._settings)
        if min(len(subject.rows), len(training) or len(subject.rows)) < _FEWEST_ROWS:
            return CheckResult(
                Verdict.INCONCLUSIVE, (f"fewer than {_FEWEST_ROWS} rows to learn from or to compare on",)
            )
        rivals = simple_models(subject.rows, subject.features, subject.truth.task, subject.seed)
        said = {each.name: self._said(each, subject, training, truth) for each in rivals}
        reached = {name: _quality(each, subject.truth) for name, each in said.items()}
        best = max(reached, key=lambda name: reached[name])
        mine, measure = _quality(subject.predictions, subject.truth), _measure(subject.predictions, subject.truth)
        ahead = _ahead(subject, said[best])
        found = [self._worse(ahead, best, measure, len(subject.rows)), self._too_good(subject, said[best], best)]
        judged = Judgement.together([each for each in found if each is not None])
        numbers: Numbers = {
            measure: mine,
            f"{measure} of {best}": reached[best],
            "simple_ahead": ahead.estimate,
            "simple_ahead_low": ahead.low,
            "simple_ahead_high": ahead.high,
            "trained_on": len(training),
        }
        rows = ((subject.manifest.reference, mine), *reached.items())
        tables = [ResultTable("Beside simple models", ("model", measure), rows)]
        reasons, plots = judged.reasons, list[Plot]()
        if self._settings.learning_curve and len(training) >= _FEWEST_ROWS:
            curve = learning_curve(rivals[0], training, truth, subject)
            tables.append(curve.table)
            plots.append(curve.plot)
            reasons = (*reasons, curve.hint)
        return CheckResult(judged.verdict, reasons, numbers, tuple(tables), tuple(plots))

    def _said(self, model: SimpleModel, subject: Subject, training: Rows, truth: Truth) -> Predictions:
        if not len(training):
            return cross_fitted(model, subject.rows, subject.truth, subject.seed, subject.groups)
        model.learn(training, truth)
        return model.predict(subject.rows, subject.truth)

    def _worse(self, ahead: Interval, best: str, measure: str, rows: int) -> Judgement:
        at_most = self._settings.worse_at_most
        return judge_bound(f"{measure} by which a {best} does better", ahead, at_most=at_most, rows=rows)

    def _too_good(self, subject: Subject, simple: Predictions, best: str) -> Judgement | None:
        """Inconclusive where the version errs so much less than a simple model that it may have seen the rows."""
        mine, theirs = losses_of(subject.predictions, subject.truth), losses_of(simple, subject.truth)
        if mine.mean() >= self._settings.too_good * theirs.mean():
            return None
        if subject.truth.task.is_classification:
            if mcnemar(1 - mine, 1 - theirs).mid_p / 2 >= 1 - subject.confidence:
                return None
            errors = f"{int(mine.sum())} of {len(mine)} rows are wrong, and {int(theirs.sum())} of a {best}'s"
        else:
            errors = f"the mean error is {mine.mean():.4g}, and a {best}'s {theirs.mean():.4g}"
        reason = f"too good to be taken on trust: {errors}. Was it trained on these rows, or is the target in them?"
        return Judgement(Verdict.INCONCLUSIVE, (reason,))


class OverfitCheck:
    """The version on its training rows beside the rows held out."""

    name = "overfit"
    role = Role.SAFEGUARD

    def __init__(self, settings: FitSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Ask about the training rows, and compare."""
        training, truth = _learned(subject, self._settings)
        if not len(training):
            reason = "no training rows are known: split the data, or name them with [fit] training"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,))
        there = losses_of(ask_each(subject, training).predictions, truth)
        here = losses_of(subject.predictions, subject.truth)
        gap = _gap(subject, here, there)
        found = judge_bound("gap between training rows and those held out", gap, at_most=self._settings.gap_at_most)
        doubt = known_rows(subject, training)
        of_classes = subject.truth.task.is_classification
        numbers: Numbers = {
            "accuracy in training" if of_classes else "mean error in training": _kept(there, of_classes),
            "accuracy held out" if of_classes else "mean error held out": _kept(here, of_classes),
            "gap": gap.estimate,
            "gap_low": gap.low,
            "gap_high": gap.high,
            "gap_at_most": self._settings.gap_at_most,
        }
        return CheckResult(found.verdict, (*found.reasons, *((doubt,) if doubt else ())), numbers)


def _learned(subject: Subject, settings: FitSettings) -> tuple[Rows, Truth]:
    """The training rows, at most so many, and what is true of them."""
    training = training_rows(subject, settings.training)
    if len(training) > settings.rows:
        training = training.take(np.sort(subject.rng("training rows").choice(len(training), settings.rows, False)))
    if not len(training):
        return training, subject.truth.take(np.empty(0, dtype=np.int64))
    return training, subject.asked.reader.truth(training)


def _has_area(predicted: Predictions, truth: Truth) -> bool:
    return (
        truth.task is Task.BINARY
        and predicted.probabilities is not None
        and int(np.bincount(truth.target, minlength=2).min()) > 1
    )


def _measure(predicted: Predictions, truth: Truth) -> str:
    if not truth.task.is_classification:
        return "skill"
    return "AUC" if _has_area(predicted, truth) else "accuracy"


def _quality(predicted: Predictions, truth: Truth) -> float:
    """Higher is better: AUC, accuracy, or the share of the errors of saying the mean that is avoided."""
    if _has_area(predicted, truth):
        return float(area_under_curve(truth.target, score_of(predicted)))
    loss = float(losses_of(predicted, truth).mean())
    return 1 - loss if truth.task.is_classification else 1 - loss / _spread(truth.target)


def _spread(target: Array) -> float:
    return float(np.abs(target - target.mean()).mean()) or 1.0


def _ahead(subject: Subject, simple: Predictions) -> Interval:
    """By how much the simple model is better, on the same rows."""
    truth, mine, level = subject.truth, subject.predictions, 2 * subject.confidence - 1
    if subject.groups is None and _has_area(mine, truth) and _has_area(simple, truth):
        return compare_aucs(truth.target, score_of(simple), score_of(mine), level=level).difference
    one, other = losses_of(simple, truth), losses_of(mine, truth)
    if subject.groups is None and truth.task.is_classification:
        return mcnemar(1 - one, 1 - other, level=level).difference
    scale = 1.0 if truth.task.is_classification else _spread(truth.target)
    rng = subject.rng("baseline")
    drawn = bootstrap_metric(
        lambda a, b: float(b.mean() - a.mean()) / scale,
        one, other, rng, resamples=subject.resamples, level=level, groups=subject.groups,
    )  # fmt: skip
    return drawn.interval


def _gap(subject: Subject, here: Array, there: Array) -> Interval:
    """By how much it is better on the training rows: of the accuracy, or of a regression's skill."""
    level = 2 * subject.confidence - 1
    if subject.truth.task.is_classification:
        right = (float((there == 0).sum()), float(len(there))), (float((here == 0).sum()), float(len(here)))
        return newcombe_difference(*right, level=level)
    # Two independent means: their difference is near to normal for the rows that suffice to learn anything.
    scale = _spread(subject.truth.target)
    error = math.sqrt(float(here.var()) / len(here) + float(there.var()) / len(there)) / scale
    difference = float(here.mean() - there.mean()) / scale
    reach = quantile_z(level) * error
    return Interval(difference, difference - reach, difference + reach, level)


def _kept(losses: Array, of_classes: bool) -> float:
    return float(1 - losses.mean()) if of_classes else float(losses.mean())
