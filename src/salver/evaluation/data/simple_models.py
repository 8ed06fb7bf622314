"""Simple models trained on the spot, to compare a version and its data with.

What a linear model and a forest reach without any care is what a version has to reach with it; what they predict
of rows they have not seen says how much of the target is in the columns at all.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from salver.evaluation.subject.predictions import Predictions, Task, Truth
from salver.evaluation.subject.rows import Array, Rows
from salver.protocol.errors import SalverError

__all__ = ["SimpleModel", "cross_fitted", "folds", "is_prose", "simple_models", "sklearn_part"]

_MOST_CATEGORIES: Final = 50
_MOST_WORDS: Final = 20_000
_TREES: Final = 60
_FOLDS: Final = 5


def sklearn_part(name: str) -> Any:
    """A module of scikit-learn; raises UNSUPPORTED without it."""
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError:
        raise SalverError(
            "UNSUPPORTED", "simple models need scikit-learn", "pip install 'salver[evaluation]'"
        ) from None


def is_prose(column: Array) -> bool:
    """Whether text is to be read rather than compared: of many values, some with several words."""
    if column.dtype.kind != "O":
        return False
    values = {value for value in column if value}
    return len(values) > _MOST_CATEGORIES and any(" " in value for value in values)


class _Encoder:
    """Columns as one matrix: numbers scaled with gaps filled, categories as indicators, prose as weighed words."""

    def __init__(self, rows: Rows, features: tuple[str, ...]) -> None:
        self._columns = {name: is_prose(rows.column(name)) for name in features}
        self.has_words = any(self._columns.values())
        self._parts = {name: _part(rows.column(name)) for name in features}
        for name, part in self._parts.items():
            part.fit(_cells(rows.column(name), prose=self._columns[name]))

    def matrix(self, rows: Rows) -> Any:
        blocks = [
            part.transform(_cells(rows.column(name), prose=self._columns[name])) for name, part in self._parts.items()
        ]
        if self.has_words:
            from scipy import sparse  # noqa: PLC0415 - an extra

            return sparse.hstack(list(map(sparse.csr_matrix, blocks))).tocsr()
        return np.hstack(blocks)


def _part(column: Array) -> Any:
    if is_prose(column):
        text = sklearn_part("feature_extraction.text")
        return text.TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=_MOST_WORDS)
    preprocessing = sklearn_part("preprocessing")
    if column.dtype.kind == "O":
        return preprocessing.OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES, sparse_output=False
        )
    gaps = sklearn_part("impute").SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return sklearn_part("pipeline").make_pipeline(gaps, preprocessing.StandardScaler())


def _cells(column: Array, *, prose: bool) -> Array:
    if column.dtype.kind == "O":
        text = np.array(["" if value is None else value for value in column], dtype=object)
        return text if prose else text[:, np.newaxis]
    numbers = column.astype(np.int64) if column.dtype.kind == "M" else column
    return np.where(np.isfinite(numbers), numbers, np.nan).astype(np.float64)[:, np.newaxis]


class SimpleModel:
    """One kind of model, which learns from rows and answers as a version does."""

    def __init__(self, name: str, make: Callable[[], Any], features: tuple[str, ...]) -> None:
        self.name = name
        self._make = make
        self._features = features
        self._encoder: _Encoder | None = None
        self._model: Any = None

    def learn(self, rows: Rows, truth: Truth) -> None:
        """Learn from rows. What it cannot fit perfectly it fits as well as it can."""
        self._encoder = _Encoder(rows, self._features)
        self._model = self._make()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged is no news of a model without any care
            self._model.fit(self._encoder.matrix(rows), truth.target)

    def predict(self, rows: Rows, truth: Truth) -> Predictions:
        """Answers for rows; of classes that it never saw the probability is 0. REQUIRES that it has learned."""
        assert self._encoder is not None
        matrix = self._encoder.matrix(rows)
        if truth.task is Task.REGRESSION:
            return Predictions(values=self._model.predict(matrix).astype(np.float64))
        probabilities = np.zeros((len(rows), len(truth.classes)))
        probabilities[:, self._model.classes_] = self._model.predict_proba(matrix)
        return Predictions(probabilities.argmax(axis=1), probabilities)


def simple_models(rows: Rows, features: tuple[str, ...], task: Task, seed: int) -> list[SimpleModel]:
    """A linear model, and a forest where there are no words."""
    linear, ensemble = sklearn_part("linear_model"), sklearn_part("ensemble")
    of_classes = task.is_classification
    makers: list[tuple[str, Callable[[], Any]]] = [
        (
            "logistic regression" if of_classes else "ridge regression",
            (lambda: linear.LogisticRegression(max_iter=500)) if of_classes else linear.Ridge,
        )
    ]
    if not any(is_prose(rows.column(name)) for name in features):
        forest = ensemble.RandomForestClassifier if of_classes else ensemble.RandomForestRegressor
        makers.append(("forest", lambda: forest(_TREES, random_state=seed, min_samples_leaf=2)))
    return [SimpleModel(name, make, features) for name, make in makers]


def folds(truth: Truth, seed: int, groups: Array | None = None) -> Iterator[tuple[Array, Array]]:
    """Rows to learn from and rows to answer, five times, each row answered once.

    Raises INVALID_PARAMETER where there are too few rows of each class.
    """
    selection = sklearn_part("model_selection")
    rows = np.zeros(len(truth.target))
    if groups is not None:
        found = selection.GroupKFold(min(_FOLDS, len(np.unique(groups))))
        yield from found.split(rows, groups=groups)
        return
    if not truth.task.is_classification:
        yield from selection.KFold(_FOLDS, shuffle=True, random_state=seed).split(rows)
        return
    least = int(np.bincount(truth.target)[np.unique(truth.target)].min())
    if least < 2:
        raise SalverError(
            "INVALID_PARAMETER", f"a class has {least} row, too few to learn and to answer", "add rows of it"
        )
    split = selection.StratifiedKFold(min(_FOLDS, least), shuffle=True, random_state=seed)
    yield from split.split(rows, truth.target)


def cross_fitted(model: SimpleModel, rows: Rows, truth: Truth, seed: int, groups: Array | None = None) -> Predictions:
    """What the model says of each row having learned from others."""
    parts = []
    for learned, answered in folds(truth, seed, groups):
        model.learn(rows.take(learned), truth.take(learned))
        parts.append((answered, model.predict(rows.take(answered), truth)))
    order = np.argsort(np.concatenate([each[0] for each in parts]))

    def joined(name: str) -> Array | None:
        found = [getattr(each[1], name) for each in parts]
        return None if found[0] is None else np.concatenate(found)[order]

    return Predictions(joined("labels"), joined("probabilities"), joined("values"))
