"""Whether more rows would help: a simple model trained on more and more of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.data.simple_models import SimpleModel
from salver.evaluation.reports.results import Mark, Plot, ResultTable, Series
from salver.evaluation.subject.answers import losses_of
from salver.evaluation.subject.predictions import Truth
from salver.evaluation.subject.rows import Rows
from salver.evaluation.subject.subject import Subject

__all__ = ["LearningCurve", "learning_curve"]

_SHARES: Final = (0.1, 0.2, 0.4, 0.7, 1.0)
_RISING: Final = 0.01
"""What the last step must gain for the curve to count as rising."""
_FEWEST: Final = 10


@dataclass(frozen=True)
class LearningCurve:
    """The curve, and what it hints at. A hint is no verdict: it is about another model."""

    hint: str
    table: ResultTable
    plot: Plot


def learning_curve(model: SimpleModel, training: Rows, truth: Truth, subject: Subject) -> LearningCurve:
    """Train on growing parts of the rows, and answer the rows of that part and those held out.

    Of a regression what is measured is 1 less the mean error over that of saying the mean.
    """
    order = subject.rng("learning curve").permutation(len(training))
    points: list[tuple[int, float, float]] = []
    for share in _SHARES:
        some = order[: max(_FEWEST, round(share * len(order)))]
        part = truth.take(some)
        if len(np.unique(part.target)) < 2:
            continue
        model.learn(training.take(some), part)
        seen = _quality(losses_of(model.predict(training.take(some), part), part).mean(), part)
        unseen = _quality(losses_of(model.predict(subject.rows, subject.truth), subject.truth).mean(), subject.truth)
        points.append((len(some), seen, unseen))
    measure = "accuracy" if truth.task.is_classification else "skill"
    series = (
        Series("on its training rows", Mark.LINE, tuple(float(x[0]) for x in points), tuple(x[1] for x in points)),
        Series("held out", Mark.LINE, tuple(float(x[0]) for x in points), tuple(x[2] for x in points)),
    )
    table = ResultTable(
        f"Learning curve of a {model.name}", ("rows", f"{measure} there", f"{measure} held out"), tuple(points)
    )
    return LearningCurve(_hint(points, measure), table, Plot(table.title, "training rows", measure, series))


def _quality(loss: float, truth: Truth) -> float:
    if truth.task.is_classification:
        return float(1 - loss)
    return float(1 - loss / (np.abs(truth.target - truth.target.mean()).mean() or 1.0))


def _hint(points: list[tuple[int, float, float]], measure: str) -> str:
    if len(points) < 2:
        return "hint: too few rows for a learning curve"
    gained = points[-1][2] - points[-2][2]
    step = f"from {points[-2][0]} to {points[-1][0]} rows a simple model gains {gained:+.3g} of {measure}"
    return f"hint: {step}; {'more rows may help' if gained > _RISING else 'more rows of this kind hardly help'}"
