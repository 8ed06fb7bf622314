"""Asking a version about rows of which it may refuse some: each row alone counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.subject.predictions import Predictions, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.protocol.errors import SalverError

__all__ = ["Answers", "ask_each", "described", "losses_of", "score_of"]

_OF_THE_ROW: Final = ("MODEL_ERROR", "BAD_MODEL_OUTPUT", "NONFINITE_OUTPUT")
"""Faults that a row can cause; any other fault says nothing of the row, and is raised."""
_SERVER_FAULT: Final = 500


@dataclass(frozen=True)
class Answers:
    """What a version says of each row. Where it refused, the label is -1 and every number NaN."""

    predictions: Predictions
    codes: Array
    """Why each row was refused, a code of the catalogue; empty where it was answered."""

    @property
    def refused(self) -> Array:
        """Which rows were not answered."""
        refused: Array = self.codes != ""
        return refused


def ask_each(subject: Subject, rows: Rows) -> Answers:
    """Ask about rows; where that is refused, by halves, until the rows that are refused are found.

    Raises what is no fault of a row, as of a worker that was lost. REQUIRES at least one row.
    """
    codes = np.full(len(rows), "", dtype=object)
    pending = [np.arange(len(rows))]
    parts: list[tuple[Array, Predictions]] = []
    while pending:
        some = pending.pop()
        found = _asked(subject, rows.take(some))
        if isinstance(found, Predictions):
            parts.append((some, found))
        elif len(some) == 1:
            codes[some] = found
        else:
            half = len(some) // 2
            pending += [some[half:], some[:half]]
    return Answers(_joined(subject, parts, len(rows)), codes)


def _asked(subject: Subject, rows: Rows) -> Predictions | str:
    try:
        found = subject.predict(rows)
    except SalverError as error:
        if error.http >= _SERVER_FAULT and error.code not in _OF_THE_ROW:
            raise
        return error.code
    # NaN for a probability leaves none: the row is answered with nothing.
    lost = subject.predictions.probabilities is not None and found.probabilities is None
    return "NONFINITE_OUTPUT" if lost else found


def _joined(subject: Subject, parts: list[tuple[Array, Predictions]], count: int) -> Predictions:
    known = subject.predictions
    labels = None if known.labels is None else np.full(count, -1, dtype=np.int64)
    probabilities = None if known.probabilities is None else np.full((count, known.probabilities.shape[1]), np.nan)
    values = None if known.values is None else np.full(count, np.nan)
    for some, found in parts:
        for whole, part in ((labels, found.labels), (probabilities, found.probabilities), (values, found.values)):
            if whole is not None and part is not None:
                whole[some] = part
    return Predictions(labels, probabilities, values)


def score_of(predicted: Predictions, position: int = -1) -> Array:
    """One number a row: the value of a regression, else the probability of a class, else 1 for its label.

    `position` is that of the class; the last is the positive one of two.
    """
    if predicted.values is not None:
        return predicted.values
    if predicted.probabilities is not None:
        column: Array = predicted.probabilities[:, position]
        return column
    assert predicted.labels is not None
    wanted = 1 if position == -1 else position
    hits: Array = np.equal(predicted.labels, wanted).astype(np.float64)
    return hits


def losses_of(predicted: Predictions, truth: Truth) -> Array:
    """What each row costs: 1 for a wrong or no label, else 0; of a regression the absolute error.

    A row that a regression refuses costs what the mean of the targets would.
    """
    if truth.task.is_classification:
        assert predicted.labels is not None
        wrong: Array = np.not_equal(predicted.labels, truth.target).astype(np.float64)
        return wrong
    assert predicted.values is not None
    said = np.where(np.isfinite(predicted.values), predicted.values, truth.target.mean())
    errors: Array = np.abs(said - truth.target)
    return errors


def described(predicted: Predictions, truth: Truth, index: int, code: str = "") -> str:
    """What a version says of one row, in words."""
    if code:
        return f"refused: {code}"
    if predicted.values is not None:
        return f"{predicted.values[index]:.6g}"
    assert predicted.labels is not None
    label = int(predicted.labels[index])
    if predicted.probabilities is None:
        return truth.classes[label]
    return f"{truth.classes[label]} ({predicted.probabilities[index, label]:.4g})"
