"""Whether the answer stands in the features: a column that predicts the target too well, alone or in the version.

Two looks. One at the data: no honest column reaches 0.99 alone, as a rule; one that does is failed when even the
low end of its interval is above the bound, or above what every column below the bound reaches. One at the version:
each feature is permuted among the rows, and a version that owes nearly all of its skill to one column is
inconclusive, since that column may be right: look, and list it in `allow`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from salver.evaluation.behaviour.invariance import sample_rows
from salver.evaluation.data.simple_models import sklearn_part
from salver.evaluation.data.single_features import SingleFeature, single_features
from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.answers import ask_each, losses_of, score_of
from salver.evaluation.subject.predictions import Predictions, Task, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.subject.training_rows import training_rows, with_training
from salver.evaluation.suites.sections import LeakageSettings
from salver.protocol.verdict import Judgement, Verdict

__all__ = ["TargetLeakageCheck"]

_MOST_ROWS: Final = 20_000
_MOST_ABLATED: Final = 100
_ABLATED_ROWS: Final = 1000
_SHOWN: Final = 15
_LEAST_SKILL: Final = 0.3
"""Of a version with less skill than that nothing can be said of what it owes to whom."""
_DIGESTS: Final = ".txt"


class TargetLeakageCheck:
    """Single columns against the target, and the version without each column."""

    name = "target_leakage"
    role = Role.SAFEGUARD

    def __init__(self, settings: LeakageSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Look at each feature alone, and at what the version loses without it."""
        settings = self._settings
        features = tuple(name for name in subject.features if name not in settings.allow)
        rows, truth = self._rows(subject, features)
        if len(rows) < settings.min_rows:
            reason = f"{len(rows)} rows, and {settings.min_rows} are needed to tell"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,))
        level = 2 * subject.confidence - 1
        alone = single_features(rows, truth, features, level, settings.single_feature_at_most, subject.seed)
        skill, lost = _ablated(subject, _ordered(alone, features))
        found = [self._alone(alone, truth), self._owed(skill, lost, subject)]
        judged = Judgement.together([each for each in found if each is not None])
        numbers: dict[str, str | int | float | None] = {
            "rows": len(rows),
            "features": len(features),
            "best_alone": alone[0].reached.estimate if alone else None,
            "best_alone_low": alone[0].reached.low if alone else None,
            "skill": skill,
            "most_owed": max(lost.values(), default=None),
        }
        table, plot = _table(alone, lost, truth), _plot(alone, settings.single_feature_at_most, truth)
        return CheckResult(judged.verdict, judged.reasons, numbers, (table,), (plot,) if alone else ())

    def _rows(self, subject: Subject, features: tuple[str, ...]) -> tuple[Rows, Truth]:
        """All rows whose target is known, at most so many: it is a question about the data."""
        named = self._settings.training
        training = Rows({}) if named.endswith(_DIGESTS) else training_rows(subject, named)
        rows, target = with_training(subject, training, features)
        if len(target) > _MOST_ROWS:
            some = np.sort(subject.rng(self.name).choice(len(target), _MOST_ROWS, replace=False))
            rows, target = rows.take(some), target[some]
        return rows, Truth(subject.truth.task, target, subject.truth.classes)

    def _alone(self, alone: list[SingleFeature], truth: Truth) -> Judgement:
        at_most, measure = self._settings.single_feature_at_most, _measure(truth)
        suspects = [each for each in alone if each.reached.estimate >= at_most]
        honest = max((each.reached.estimate for each in alone if each.reached.estimate < at_most), default=1.0)
        if not suspects:
            best = f"; {alone[0].name!r} reaches most, {alone[0].reached.estimate:.4g}" if alone else ""
            return Judgement(Verdict.SUCCESSFUL, (f"no column alone reaches {measure} {at_most:g}{best}",))
        found = []
        for each in suspects:
            low = each.reached.low
            sure = low > at_most or low > honest
            reason = f"{each.name!r} alone predicts the target: {measure} {each.reached.estimate:.4g} [{low:.4g}, "
            reason += f"{each.reached.high:.4g}]; {at_most:g} is allowed"
            verdict = Verdict.FAILED if sure else Verdict.INCONCLUSIVE
            found.append(Judgement(verdict, (reason if sure else f"{reason}, and there are too few rows to be sure",)))
        return Judgement.together(found)

    def _owed(self, skill: float, lost: dict[str, float], subject: Subject) -> Judgement | None:
        if skill < _LEAST_SKILL or len(lost) < 2:
            return None
        name = max(lost, key=lambda each: lost[each])
        if lost[name] < self._settings.ablation_at_most:
            return Judgement(
                Verdict.SUCCESSFUL, (f"without {name!r} it loses {lost[name]:.0%} of its skill, the most",)
            )
        reason = (
            f"without {name!r} {subject.manifest.reference} loses {lost[name]:.0%} of its skill: see whether that is "
            "known when one predicts, and list it in allow"
        )
        return Judgement(Verdict.INCONCLUSIVE, (reason,))


def _measure(truth: Truth) -> str:
    return "AUC" if truth.task.is_classification else "R2"


def _ordered(alone: list[SingleFeature], features: tuple[str, ...]) -> tuple[str, ...]:
    """The features with those first that reach most alone: what costs time is spent on them."""
    best = dict.fromkeys(each.name for each in alone if each.name in features)
    return tuple(dict.fromkeys((*best, *features)))


def _ablated(subject: Subject, features: tuple[str, ...]) -> tuple[float, dict[str, float]]:
    """The version's skill, from 0 for guessing to 1, and the share of it that is lost without each feature."""
    rng = subject.rng("ablation")
    chosen = sample_rows(subject, _ABLATED_ROWS, rng)
    rows, truth = subject.rows.take(chosen), subject.truth.take(chosen)
    skill = _skill(subject.predictions.take(chosen), truth)
    if skill < _LEAST_SKILL or len(subject.features) < 2:
        return skill, {}
    lost = {}
    for name in features[:_MOST_ABLATED]:
        answers = ask_each(subject, rows.replaced(**{name: rng.permutation(rows.column(name))}))
        answered = ~answers.refused
        without = _skill(answers.predictions.take(answered), truth.take(answered)) if answered.sum() > 1 else skill
        lost[name] = (skill - without) / skill
    return skill, lost


def _skill(predicted: Predictions, truth: Truth) -> float:
    """Of two classes with probabilities 2 AUC - 1; else the share of guessing's losses that is avoided."""
    if truth.task is Task.BINARY and predicted.probabilities is not None and len(np.unique(truth.target)) == 2:
        return 2 * float(sklearn_part("metrics").roc_auc_score(truth.target, score_of(predicted))) - 1
    guessed = _guessing(truth)
    return 1 - float(losses_of(predicted, truth).mean()) / guessed if guessed > 0 else 0.0


def _guessing(truth: Truth) -> float:
    """The mean loss of always saying the commonest class, or the median."""
    if truth.task.is_classification:
        return 1 - float(np.bincount(truth.target).max()) / len(truth.target)
    spread: Array = np.abs(truth.target - np.median(truth.target))
    return float(spread.mean())


def _table(alone: list[SingleFeature], lost: dict[str, float], truth: Truth) -> ResultTable:
    rows = tuple(
        (each.name, each.reached.estimate, each.reached.low, each.reached.high, lost.get(each.name))
        for each in alone[:_SHOWN]
    )
    columns = ("feature", f"{_measure(truth)} alone", "low", "high", "share of the skill that is lost without it")
    return ResultTable("The features that reach most alone", columns, rows)


def _plot(alone: list[SingleFeature], at_most: float, truth: Truth) -> Plot:
    shown = alone[:_SHOWN][::-1]
    series = Series(
        "alone",
        Mark.BARS,
        tuple(each.reached.estimate for each in shown),
        tuple(float(index) for index in range(len(shown))),
        names=tuple(each.name for each in shown),
    )
    return Plot("What single features reach", _measure(truth), "", (series,), at_x=at_most)
