"""Simple models trained on the spot, to compare a version and its data with. The one module that imports their parts.

What a linear model and a forest reach without any care is what a version has to reach with it; what they predict
of rows they have not seen says how much of the target is in the columns at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from salver.evaluation.predictions import Predictions, Task, Truth
from salver.evaluation.rows import Array, Rows
from salver.protocol.errors import SalverError

__all__ = ["Forecaster", "cross_fitted", "folds", "forecasters", "is_prose"]

_MOST_CATEGORIES: Final = 50
_MOST_WORDS: Final = 20_000
_TREES: Final = 60
_FOLDS: Final = 5


class _Encoder:
    """Columns as one matrix: numbers scaled with gaps filled, categories as indicators, prose as weighed words."""

    def __init__(self, rows: Rows, features: tuple[str, ...]) -> None:
        self._features = features
        self._parts = {name: _part(rows.column(name)) for name in features}
        for name, part in self._parts.items():
            part.fit(_cells(rows.column(name)))

    @property
    def is_sparse(self) -> bool:
        """Whether there are words among the columns."""
        return any(hasattr(part, "vocabulary_") for part in self._parts.values())

    def matrix(self, rows: Rows) -> Any:
        blocks = [self._parts[name].transform(_cells(rows.column(name))) for name in self._features]
        if self.is_sparse:
            from scipy import sparse  # noqa: PLC0415 - an extra

            return sparse.hstack([sparse.csr_matrix(block) for block in blocks]).tocsr()
        return np.hstack([block if isinstance(block, np.ndarray) else block.toarray() for block in blocks])


def is_prose(column: Array) -> bool:
    """Whether text is to be read rather than compared: of many values, some with several words."""
    if column.dtype.kind != "O":
        return False
    values = {value for value in column if value}
    return len(values) > _MOST_CATEGORIES and any(" " in value for value in values)


def _part(column: Array) -> Any:
    learn = _sklearn()
    if is_prose(column):
        return learn.text.TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=_MOST_WORDS)
    if column.dtype.kind == "O":
        return learn.preprocessing.OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES)
    return learn.pipeline.make_pipeline(
        learn.impute.SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        learn.preprocessing.StandardScaler(),
    )


def _cells(column: Array) -> Any:
    if is_text := column.dtype.kind == "O":
        column = np.array(["" if value is None else value for value in column], dtype=object)
    if is_text:
        return _OneOrMany(column)
    numbers = column.astype(np.int64) if column.dtype.kind == "M" else column
    return np.where(np.isfinite(numbers), numbers, np.nan).astype(np.float64)[:, np.newaxis]
