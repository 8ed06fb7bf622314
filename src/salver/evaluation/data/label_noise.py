"""Labels that look wrong: rows that models which have not seen them are sure to be something else.

Confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70, 1373): a row with label i counts as j when its
out-of-sample probability of j is at least the mean of that probability among the rows labelled j (eq. 2). Of a
regression, a row counts whose out-of-sample error is beyond five robust deviations. A hint, unless it has a bound:
hard rows look the same as mislabelled ones.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from salver.evaluation.data.simple_models import cross_fitted, simple_models
from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.predictions import Predictions, Truth
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import FitSettings
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.intervals import wilson
from salver.stats.margins import judge_bound
from salver.stats.power import more_for_share

__all__ = ["LabelNoiseCheck"]

_SHOWN: Final = 10
_FEWEST_ROWS: Final = 50
_FAR: Final = 5.0
_TO_SIGMA: Final = 1.4826
"""From a normal distribution's median absolute deviation to its standard deviation."""


class LabelNoiseCheck:
    """The share of evaluated rows whose labels look wrong."""

    name = "label_noise"
    role = Role.SAFEGUARD

    def __init__(self, settings: FitSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Let a simple model answer rows it has not seen, and count where it is sure of another label."""
        rows, truth = subject.rows, subject.truth
        if len(rows) < _FEWEST_ROWS:
            verdict = Verdict.SUCCESSFUL if self._settings.label_noise_at_most is None else Verdict.INCONCLUSIVE
            return CheckResult(verdict, (f"{len(rows)} rows, and {_FEWEST_ROWS} are needed to tell",))
        model = simple_models(rows, subject.features, truth.task, subject.seed)[-1]
        said = cross_fitted(model, rows, truth, subject.seed, subject.groups)
        doubt, instead = _of_labels(said, truth) if truth.task.is_classification else _of_values(said, truth)
        suspects = np.flatnonzero(doubt > 0)
        share = wilson(len(suspects), len(rows), level=2 * subject.confidence - 1)
        found = self._judged(share.estimate, len(suspects), len(rows))
        if self._settings.label_noise_at_most is not None:
            found = judge_bound(
                "share of labels that look wrong",
                share,
                at_most=self._settings.label_noise_at_most,
                rows=len(rows),
                plan=more_for_share,
            )
        worst = suspects[np.argsort(-doubt[suspects], kind="stable")][:_SHOWN]
        table = ResultTable(
            "Labels that look wrong, the surest first",
            ("row", "label", "looks like", "by"),
            tuple((int(row), _named(truth, row), instead[row], float(doubt[row])) for row in worst),
        )
        numbers: dict[str, str | int | float | None] = {
            "suspects": len(suspects),
            "share": share.estimate,
            "low": share.low,
            "high": share.high,
        }
        return CheckResult(found.verdict, found.reasons, numbers, (table,) if len(worst) else ())

    def _judged(self, share: float, suspects: int, rows: int) -> Judgement:
        reason = f"hint: {suspects} of {rows} labels ({share:.1%}) look wrong to a simple model, reported only"
        return Judgement(Verdict.SUCCESSFUL, (reason,))


def _of_labels(said: Predictions, truth: Truth) -> tuple[Array, list[str]]:
    """By how much each row's other label is likelier where that is sure, else 0; and that label."""
    assert said.probabilities is not None
    probabilities, labels = said.probabilities, truth.target
    threshold = np.array(
        [
            probabilities[labels == index, index].mean() if (labels == index).any() else np.inf
            for index in range(len(truth.classes))
        ]
    )
    sure = np.where(probabilities >= threshold, probabilities, -1.0)
    other = sure.argmax(axis=1)
    given = probabilities[np.arange(len(labels)), labels]
    is_suspect = (sure.max(axis=1) >= 0) & (other != labels)
    doubt = np.where(is_suspect, np.maximum(sure.max(axis=1) - given, 1e-9), 0.0)
    return doubt, [truth.classes[int(index)] for index in other]


def _of_values(said: Predictions, truth: Truth) -> tuple[Array, list[str]]:
    """Each row's error in robust deviations where that is far, else 0; and the value expected."""
    assert said.values is not None
    errors = truth.target - said.values
    deviation = _TO_SIGMA * float(np.median(np.abs(errors - np.median(errors))))
    distance = np.abs(errors - np.median(errors)) / (deviation or 1.0)
    return np.where(distance > _FAR, distance, 0.0), [f"{value:.6g}" for value in said.values]


def _named(truth: Truth, row: int) -> str:
    return truth.classes[int(truth.target[row])] if truth.task.is_classification else f"{truth.target[row]:.6g}"
