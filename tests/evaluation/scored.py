"""Subjects whose version is a Python function: everything but the serving is real, and it takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from salver.evaluation.subject.predictions import Predictions, Task, Truth
from salver.evaluation.subject.rows import Rows
from salver.evaluation.subject.subject import Subject
from salver.protocol.errors import SalverError
from salver.testing import ManualClock, make_manifest


class _Reader:
    """What is true of rows, as `predictions.Reader` tells it."""

    def __init__(self, task: Task, classes: tuple[str, ...]) -> None:
        self.task, self.classes = task, classes

    def truth(self, rows: Rows) -> Truth:
        return Truth(self.task, rows.column("target"), self.classes)


def made_subject(
    columns: dict[str, np.ndarray],
    target: np.ndarray,
    model: Callable[[Rows], np.ndarray],
    *,
    classes: tuple[str, ...] = ("0", "1"),
    regression: bool = False,
    training: tuple[dict[str, np.ndarray], np.ndarray] | None = None,
    features: tuple[str, ...] | None = None,
    **more,
) -> Subject:
    """A subject whose version is `model`: from rows to the probability of class 1, of every class, or to values."""
    rows = Rows({**columns, "target": np.asarray(target)}, "d1")

    def predict(asked: Rows) -> Predictions:
        said = np.asarray(model(asked), dtype=float)
        if regression:
            return Predictions(values=said)
        if not np.isfinite(said).all():
            raise SalverError("NONFINITE_OUTPUT", "output has NaN")
        probabilities = np.column_stack([1 - said, said]) if said.ndim == 1 else said
        return Predictions(probabilities.argmax(axis=1), probabilities)

    task = Task.REGRESSION if regression else Task.BINARY if len(classes) == 2 else Task.MULTICLASS
    names = () if regression else classes
    asked = SimpleNamespace(
        manifest=make_manifest(),
        mapping=SimpleNamespace(features=tuple(columns) if features is None else features),
        predict=predict,
        reader=_Reader(task, names),
    )
    others = rows.take(np.arange(0)) if training is None else Rows({**training[0], "target": training[1]}, "d1")
    return Subject(
        asked=asked,
        rows=rows,
        others=others,
        truth=Truth(task, rows.column("target"), names),
        predictions=predict(rows),
        clock=ManualClock(),
        target="target",
        **({"resamples": 300} | more),
    )


def learned_subject(estimator, table: dict[str, np.ndarray], target: np.ndarray, seed: int = 0, ratio=0.4, **more):
    """A subject of a scikit-learn classifier trained on one part of a table of numbers and judged on the other."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(target))
    held, rest = np.split(order, [round(len(order) * ratio)])
    matrix = np.column_stack(list(table.values()))
    estimator.fit(matrix[rest], target[rest])

    def model(rows: Rows) -> np.ndarray:
        found = estimator.predict_proba(np.column_stack([rows.column(name) for name in table]))
        return found[:, 1] if found.shape[1] == 2 else found

    return made_subject(
        {name: column[held] for name, column in table.items()},
        target[held],
        model,
        training=({name: column[rest] for name, column in table.items()}, target[rest]),
        seed=seed,
        **more,
    )
