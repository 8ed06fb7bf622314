"""How well one column alone predicts the target: for two classes an area under the curve, else what a small tree does.

A column of numbers is taken as a ranking, whichever way round; categories by the share of the target among other
rows of the same value. The emptiness of a column counts as a column: a form that is filled in only for the sick
says who is sick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.data.simple_models import folds, is_prose, sklearn_part
from salver.evaluation.subject.predictions import Task, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.protocol.errors import SalverError
from salver.stats.bootstrap import bootstrap_metric
from salver.stats.delong import area_under_curve, auc_interval
from salver.stats.intervals import Interval

__all__ = ["SingleFeature", "single_features"]

_PRIOR_ROWS: Final = 5.0
"""Rows of the overall share added to those of a value, so that a rare value says little."""
_LEAST_LEAF: Final = 5
_RESAMPLES: Final = 200


@dataclass(frozen=True)
class SingleFeature:
    """What one column reaches alone: an area under the curve, or of a regression R2."""

    name: str
    reached: Interval


def single_features(
    rows: Rows, truth: Truth, features: tuple[str, ...], level: float, suspicious: float, seed: int
) -> list[SingleFeature]:
    """What each feature reaches alone, best first.

    Prose is left out: a model of text is one of a single column. Only what reaches `suspicious` has an interval
    where that takes a bootstrap; the others' has no width.
    """
    found = []
    for name in features:
        for shown, column in _columns(name, rows.column(name)):
            reached = _reached(column, truth, level, suspicious, seed)
            if reached is not None:
                found.append(SingleFeature(shown, reached))
    return sorted(found, key=lambda each: -each.reached.estimate)


def _columns(name: str, column: Array) -> Iterator[tuple[str, Array]]:
    if is_prose(column):
        return
    empty = _empty(column)
    if column.dtype.kind == "O":
        yield name, np.array(["" if value is None else value for value in column], dtype=object)
    else:
        numbers = (column.astype(np.int64) if column.dtype.kind == "M" else column).astype(np.float64)
        present = numbers[~empty]
        # A missing number stands below all others, apart from them.
        low = float(present.min() - 1 - np.ptp(present)) if len(present) else 0.0
        yield name, np.where(empty, low, numbers)
    if empty.any() and not empty.all():
        yield f"{name} is missing", empty.astype(np.float64)


def _empty(column: Array) -> Array:
    if column.dtype.kind == "O":
        return np.array([value is None for value in column])
    if column.dtype.kind == "M":
        return np.isnat(column)
    empty: Array = ~np.isfinite(column.astype(np.float64))
    return empty


def _reached(column: Array, truth: Truth, level: float, suspicious: float, seed: int) -> Interval | None:
    """What a column reaches; None where it has one value, or there are too few rows of a class."""
    if len(set(column.tolist())) < 2:
        return None
    try:
        if truth.task is Task.BINARY:
            ranking = _shares(column, truth, seed) if column.dtype.kind == "O" else column
            found = auc_interval(truth.target, ranking, level=level)
            turned = auc_interval(truth.target, -ranking, level=level)
            return found if found.estimate >= turned.estimate or column.dtype.kind == "O" else turned
        said = _of_tree(column, truth, seed)
        interval = _measured(truth, said, level, suspicious, seed)
    except SalverError as error:
        if error.code != "INVALID_PARAMETER":
            raise
        return None
    return interval


def _shares(values: Array, truth: Truth, seed: int) -> Array:
    """For each row the share of the positive class among other rows with its value (by folds)."""
    shares = np.empty(len(values))
    codes = np.unique(values.astype(str), return_inverse=True)[1]
    for learned, answered in folds(truth, seed):
        overall = float(truth.target[learned].mean())
        counts = np.bincount(codes[learned], minlength=codes.max() + 1)
        sums = np.bincount(codes[learned], truth.target[learned], codes.max() + 1)
        shares[answered] = ((sums + _PRIOR_ROWS * overall) / (counts + _PRIOR_ROWS))[codes[answered]]
        # By how far each fold's share differs from the others' says nothing of its rows.
        shares[answered] -= overall
    return shares


def _of_tree(column: Array, truth: Truth, seed: int) -> Array:
    """What a small tree on this column says of rows it has not seen."""
    tree = sklearn_part("tree")
    codes = np.unique(column.astype(str), return_inverse=True)[1] if column.dtype.kind == "O" else column
    matrix = codes.astype(np.float64)[:, np.newaxis]
    of_classes = truth.task.is_classification
    said = np.zeros((len(matrix), len(truth.classes)) if of_classes else len(matrix))
    for learned, answered in folds(truth, seed):
        make = tree.DecisionTreeClassifier if of_classes else tree.DecisionTreeRegressor
        model = make(min_samples_leaf=_LEAST_LEAF, random_state=seed).fit(matrix[learned], truth.target[learned])
        if of_classes:
            said[np.ix_(answered, model.classes_)] = model.predict_proba(matrix[answered])
        else:
            said[answered] = model.predict(matrix[answered])
    return said


def _measured(truth: Truth, said: Array, level: float, suspicious: float, seed: int) -> Interval:
    metric = _mean_area if truth.task.is_classification else _explained
    estimate = metric(truth.target, said)
    if estimate < suspicious:
        return Interval(estimate, estimate, estimate, level)
    rng = np.random.default_rng(seed)
    return bootstrap_metric(metric, truth.target, said, rng, resamples=_RESAMPLES, level=level).interval


def _mean_area(target: Array, probabilities: Array) -> float:
    """The mean over the classes of the area of each against the rest."""
    areas = []
    for index in np.unique(target):
        mine = target == index
        if mine.all():
            return float("nan")
        areas.append(area_under_curve(mine, probabilities[:, index]))
    return float(np.mean(areas))


def _explained(target: Array, said: Array) -> float:
    spread = float(((target - target.mean()) ** 2).sum())
    return 1 - float(((target - said) ** 2).sum()) / spread if spread > 0 else float("nan")
