"""From the outputs of a version to predictions that can be scored, and from the target column to what is true.

Labels are positions in one tuple of class names, so that a version that answers `1`, one that answers
`b"malignant"` and a file that says `malignant` can be compared. What cannot be told from the signature and
the numbers is not guessed: the error names the setting that says it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.suites.suite import Suite
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

__all__ = ["Predictions", "Reader", "Task", "Truth", "class_name"]

_SUM_TOLERANCE: Final = 1e-3
"""How far from 1 the sum of a row of probabilities may be: they may have come as FP16."""
_LABELS: Final = ("label", "labels", "output_label", "predicted_label", "class", "classes", "prediction")
_PROBABILITIES: Final = ("probabilities", "probability", "output_probability", "scores")
_MOST_CLASSES: Final = 10_000


class Task(enum.StrEnum):
    """What is predicted."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"

    @property
    def is_classification(self) -> bool:
        """Whether labels are predicted."""
        return self is not Task.REGRESSION


@dataclass(frozen=True)
class Truth:
    """What is true of each row: positions in `classes`, or values."""

    task: Task
    target: Array
    classes: tuple[str, ...] = ()
    """Names of the classes; the positive one is the last of two."""

    def take(self, indices: Array) -> Truth:
        """That of these rows."""
        return Truth(self.task, self.target[indices], self.classes)


@dataclass(frozen=True)
class Predictions:
    """What a version says of each row. Of a classification `labels`, and `probabilities` if it gives them."""

    labels: Array | None = None
    """Positions in the classes."""
    probabilities: Array | None = None
    """Rows by classes."""
    values: Array | None = None

    def take(self, indices: Array) -> Predictions:
        """Those of these rows."""
        parts = (self.labels, self.probabilities, self.values)
        return Predictions(*(None if part is None else part[indices] for part in parts))

    def score(self) -> Array | None:
        """The probability of the positive class, the last one; None without probabilities."""
        return None if self.probabilities is None else self.probabilities[:, -1]


def class_name(value: object) -> str:
    """What a class is called, however it came: `1`, `1.0`, `np.int64(1)` and `b"1"` are one class.

    >>> [class_name(value) for value in (1, 1.0, np.int64(1), b"1", "1", True)]
    ['1', '1', '1', '1', '1', '1']
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


class Reader:
    """Reads the outputs of one signature. Made for one suite and one column of targets."""

    def __init__(self, signature: Signature, suite: Suite, rows: Rows) -> None:
        self._outputs = suite.outputs
        specs = {spec.name: spec for spec in signature.outputs}
        for name in (suite.outputs.label, suite.outputs.probabilities, suite.outputs.score, suite.outputs.value):
            if name and name not in specs:
                raise SalverError(
                    "INVALID_SETTING", f"[outputs] names {name!r}", f"the version has {', '.join(map(repr, specs))}"
                )
        self._specs = specs
        target = rows.column(suite.suite.target)
        self.task = _task(suite, target, self._label_name(), self._probabilities_name())
        self._target = suite.suite.target
        self.classes = _classes(suite, self._declared(), target) if self.task is not Task.REGRESSION else ()
        if self.task is not Task.REGRESSION:
            self.task = Task.BINARY if len(self.classes) == 2 else Task.MULTICLASS
            self.classes, self._order = _positive_last(self.classes, suite)

    def truth(self, rows: Rows) -> Truth:
        """What is true of these rows; raises INVALID_ARTIFACT for targets that are missing or of no known class."""
        column = rows.column(self._target)
        if self.task is Task.REGRESSION:
            target = rows.numbers(self._target)
            missing = int((~np.isfinite(target)).sum())
        else:
            missing = _missing(column)
            target = self._positions(column)
        if missing:
            raise SalverError(
                "INVALID_ARTIFACT", f"{missing} rows have no target in column {self._target!r}", "leave them out"
            )
        if self.task is not Task.REGRESSION and (target < 0).any():
            unknown = class_name(column[int(np.argmax(target < 0))])
            raise SalverError(
                "INVALID_ARTIFACT",
                f"column {self._target!r} holds {unknown[:80]!r}, and the classes are {', '.join(self.classes[:20])}",
                "name all in order: [suite] classes = [...]",
            )
        return Truth(self.task, target, self.classes)

    def read(self, outputs: Mapping[str, Array]) -> Predictions:
        """The predictions in these outputs; raises BAD_MODEL_OUTPUT for what is none."""
        if self.task is Task.REGRESSION:
            return Predictions(values=self._values(outputs))
        scores = self._scores(outputs)
        name = self._label_name()
        if name:
            labels = self._positions(outputs[name].reshape(-1))
        elif scores is not None:
            labels = scores.argmax(axis=1)
        else:
            raise SalverError(
                "INVALID_SETTING",
                f"no output is known to be the label: {', '.join(self._specs)}",
                'say which: [outputs] label = "..."',
            )
        if (labels < 0).any():
            raise SalverError(
                "INVALID_SETTING",
                f"{int((labels < 0).sum())} rows are answered with a class that is none of "
                f"{', '.join(self.classes[:20])}",
                "name all classes: [suite] classes = [...]",
            )
        return Predictions(labels, scores if scores is not None and self._are_probabilities(scores) else None)

    def _label_name(self) -> str:
        if self._outputs.label or self._outputs.score:
            return self._outputs.label
        return next((name for name in _LABELS if name in self._specs and _is_label(self._specs[name])), "")

    def _probabilities_name(self) -> str:
        if self._outputs.probabilities or self._outputs.score:
            return self._outputs.probabilities
        floats = {name: spec for name, spec in self._specs.items() if spec.datatype in ("FP16", "FP32", "FP64")}
        labelled = [name for name, spec in floats.items() if spec.labels]
        named = [name for name in _PROBABILITIES if name in floats]
        wide = [name for name, spec in floats.items() if len(spec.shape) == 2 and spec.shape[1] not in (-1, 1)]
        return next(iter(labelled + named + (wide if len(wide) == 1 else [])), "")

    def _declared(self) -> tuple[str, ...]:
        spec = self._specs.get(self._probabilities_name())
        return spec.labels if spec else ()

    def _scores(self, outputs: Mapping[str, Array]) -> Array | None:
        """A number for each row and class, the highest of the likeliest; None where there is no such output."""
        if self._outputs.score:
            score = outputs[self._outputs.score].reshape(-1).astype(np.float64)
            if not ((score >= 0) & (score <= 1)).all():
                raise _no_probabilities(self._outputs.score, "values outside 0 to 1")
            return np.column_stack([1 - score, score])
        name = self._probabilities_name()
        if not name:
            return None
        found = outputs[name].astype(np.float64)
        if found.ndim != 2 or found.shape[1] != len(self.classes):
            raise _no_probabilities(name, f"rows of shape {list(found.shape[1:])} for {len(self.classes)} classes")
        ordered: Array = found[:, self._order]
        return ordered

    def _are_probabilities(self, scores: Array) -> bool:
        """Whether rows add up to 1; logits, most likely, do not. REQUIRES that they do if the suite says so."""
        low, high = scores.min(initial=0.0), scores.max(initial=1.0)
        sums_up = bool((np.abs(scores.sum(axis=1) - 1) <= _SUM_TOLERANCE).all())
        proper = sums_up and low >= -_SUM_TOLERANCE and high <= 1 + _SUM_TOLERANCE
        if self._outputs.probabilities and not proper:
            raise _no_probabilities(self._outputs.probabilities, "rows that do not add up to 1")
        return proper

    def _values(self, outputs: Mapping[str, Array]) -> Array:
        names = [name for name, spec in self._specs.items() if spec.datatype not in ("BYTES", "BOOL")]
        name = self._outputs.value or next((each for each in ("value", "label") if each in names), "")
        if not name and len(names) == 1:
            name = names[0]
        if not name:
            raise SalverError(
                "INVALID_SETTING", f"several outputs may be the value: {', '.join(names)}", 'say: [outputs] value = "."'
            )
        values = outputs[name].astype(np.float64)
        if values.size != len(values):
            raise SalverError("BAD_MODEL_OUTPUT", f"output {name!r} has {values.size // len(values)} values a row")
        if not np.isfinite(values).all():
            raise SalverError("BAD_MODEL_OUTPUT", f"output {name!r} has NaN or infinity")
        return values.reshape(-1)

    def _positions(self, labels: Array) -> Array:
        known = {name: index for index, name in enumerate(self.classes)}
        unique, inverse = np.unique(np.array([class_name(value) for value in labels], dtype=str), return_inverse=True)
        return np.array([known.get(str(name), -1) for name in unique], dtype=np.int64)[inverse]


def _is_label(spec: TensorSpec) -> bool:
    return spec.datatype in ("BYTES", "BOOL") or "INT" in spec.datatype


def _task(suite: Suite, target: Array, label: str, probabilities: str) -> Task:
    """Whether it is a regression; whether there are two classes is found out afterwards."""
    told = suite.suite.task
    if not told and suite.outputs.value:
        told = "regression"
    if not told:
        has_classes = bool(label or probabilities or suite.outputs.score) or target.dtype.kind in "Ob"
        told = "classification" if has_classes else "regression"
    return Task.REGRESSION if told == "regression" else Task.MULTICLASS


def _classes(suite: Suite, declared: Sequence[str], target: Array) -> tuple[str, ...]:
    if suite.suite.classes:
        return tuple(map(class_name, suite.suite.classes))
    if declared:
        return tuple(declared)
    present = target[[value is not None for value in target]] if target.dtype.kind == "O" else target
    names = tuple(class_name(value) for value in np.unique(present[present == present]))  # noqa: PLR0124 - NaN
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise SalverError(
            "INVALID_SETTING",
            f"the target {suite.suite.target!r} has {len(names)} different values",
            'name the classes with [suite] classes = [...], or say task = "regression"',
        )
    return names


def _positive_last(classes: tuple[str, ...], suite: Suite) -> tuple[tuple[str, ...], list[int]]:
    """The classes with the positive one last, and from which place of the version's order each comes."""
    order = list(range(len(classes)))
    if suite.suite.positive != "":
        positive = class_name(suite.suite.positive)
        if positive not in classes:
            raise SalverError(
                "INVALID_SETTING",
                f"the positive class {positive!r} is none of {', '.join(classes[:20])}",
                "name one of them: [suite] positive = ...",
            )
        order.remove(classes.index(positive))
        order.append(classes.index(positive))
    return tuple(classes[index] for index in order), order


def _missing(column: Array) -> int:
    missing: Iterable[bool] = (value is None for value in column) if column.dtype.kind == "O" else column != column  # noqa: PLR0124
    return int(sum(missing))


def _no_probabilities(name: str, why: str) -> SalverError:
    return SalverError(
        "BAD_MODEL_OUTPUT", f"output {name!r} holds no probabilities: {why}", "see [outputs] and [suite] classes"
    )
