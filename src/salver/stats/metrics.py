"""The metrics that a suite names: one table from a name to what it measures, needs and wants.

`metric("roc_auc").measure(truth, probabilities)` gives a number; a name may carry a parameter, `pinball@0.9`,
`ndcg@10`. The numbers are scikit-learn's wherever it has the metric. A metric that does not exist on the rows given
(one class only, a true value of 0 under a relative error) is refused and never a number.
"""

from __future__ import annotations

import difflib
import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from salver.stats.checked import Floats, finite, refusal, same_length
from salver.stats.metric_formulas import FORMULAS_OF_CLASSES, FORMULAS_OF_NUMBERS, FORMULAS_OF_RANKINGS

__all__ = ["METRICS", "Metric", "Needs", "metric"]

Formula: TypeAlias = Callable[..., float]


class Needs(enum.StrEnum):
    """What a metric wants to be given as predictions."""

    LABELS = "labels"
    """The predicted class of each row, as the truth names it."""
    SCORES = "scores"
    """A number per row that is larger for the second class, or one per row and class; probabilities will do."""
    PROBABILITIES = "probabilities"
    """The probability of the second class per row, or of every class, [rows, classes]."""
    VALUES = "values"
    """A number per row, in the unit of the truth."""
    RANKINGS = "rankings"
    """Scores of the documents of each query, [queries, documents]; the truth is their relevance."""


class Metric(msgspec.Struct, frozen=True):
    """A metric by its name, the parameter put in."""

    name: str
    needs: Needs
    higher_is_better: bool
    meaning: str
    formula: Formula
    parameter: float | None = None

    def measure(self, truth: ArrayLike, predicted: ArrayLike, *, classes: Sequence[Any] | None = None) -> float:
        """The metric of `predicted` on `truth`.

        `classes` are the labels in the order of the columns of probabilities; by default the sorted labels that
        occur, which is wrong for rows that lack a class - give them whenever there are columns. Of two
        classes the second is the positive one. Raises INVALID_PARAMETER where the metric does not exist.
        """
        if self.needs is Needs.RANKINGS:
            arguments: tuple[Any, ...] = _tables(truth, predicted)
        elif self.needs is Needs.VALUES:
            expected, found = finite(truth, "truth"), finite(predicted, "predicted")
            same_length(truth=expected, predicted=found)
            arguments = (expected, found)
        elif self.needs is Needs.LABELS:
            arguments = _labels(truth, predicted, classes)
        else:
            arguments = _columns(truth, predicted, classes, bounded=self.needs is Needs.PROBABILITIES)
        extra = () if self.parameter is None else (self.parameter,)
        try:
            value = float(self.formula(*arguments, *extra))
        except ValueError as error:
            raise refusal(f"{self.name} is undefined on these rows: {error}", "give other rows") from None
        if not math.isfinite(value):
            raise refusal(f"{self.name} is {value} on these rows", "give more rows, of every class")
        return value


def metric(name: str) -> Metric:
    """Look a metric up: `name` of `METRICS`, with `@parameter` where it takes one.

    >>> metric("pinball@0.9").parameter, metric("roc_auc").needs
    (0.9, <Needs.SCORES: 'scores'>)
    """
    plain, at, said = name.partition("@")
    found = METRICS.get(plain)
    if found is None:
        close = difflib.get_close_matches(plain.lower(), METRICS, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"give one of {', '.join(METRICS)}"
        raise refusal(f"no metric {plain!r}", remedy)
    if not at:
        return found
    limits = _PARAMETERS.get(plain)
    if limits is None:
        raise refusal(f"{plain} takes no parameter, but {name!r} has one", f"give {plain}")
    low, high, whole = limits
    try:
        parameter = float(said)
    except ValueError:
        parameter = math.nan
    if not low <= parameter <= high or (whole and parameter != int(parameter)):
        kind = "whole number" if whole else "number"
        raise refusal(f"{name!r} has no such parameter", f"give a {kind} from {low:g} to {high:g}")
    return msgspec.structs.replace(found, name=name, parameter=parameter)


def _encoded(values: NDArray[Any], classes: Sequence[Any], name: str) -> NDArray[np.intp]:
    """The place of each label in `classes`."""
    known = np.asarray(list(classes))
    if np.unique(known).size < known.size or known.size == 0:
        raise refusal(f"the classes are {list(classes)}", "name each class once")
    if (known.dtype.kind in "US") != (values.dtype.kind in "US"):
        raise refusal(f"{name} and the classes differ in kind, one text and one numbers", "use one")
    order = np.argsort(known)
    spots = np.searchsorted(known, values, sorter=order).clip(max=known.size - 1)
    place: NDArray[np.intp] = order[spots]
    wrong = known[place] != values
    if bool(np.any(wrong)):
        raise refusal(f"{name} has the label {values[wrong][0].item()!r}, none of the {known.size} classes", "name it")
    return place


def _label_row(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype == object:
        if bad := sum(value is None or value != value for value in array.ravel()):  # noqa: PLR0124 - NaN
            raise refusal(f"{name} lacks {bad} labels", "leave those rows out, and say so")
        array = array.astype(str)
    if array.ndim != 1 or array.size == 0:
        raise refusal(f"{name} has the shape {list(array.shape)}", "give one label per row")
    if array.dtype.kind == "f":
        finite(array, name)
    return array


def _labels(truth: ArrayLike, predicted: ArrayLike, classes: Sequence[Any] | None) -> tuple[Any, ...]:
    expected, found = _label_row(truth, "truth"), _label_row(predicted, "predicted")
    if expected.size != found.size:
        raise refusal(f"{expected.size} rows of truth but {found.size} predicted", "give the same rows to both")
    if (expected.dtype.kind in "US") != (found.dtype.kind in "US"):
        raise refusal("the truth and the predictions name classes differently, by text and by number", "use one")
    known = classes if classes is not None else np.unique(np.concatenate([expected, found])).tolist()
    return _encoded(expected, known, "truth"), _encoded(found, known, "predicted"), len(known)


def _columns(
    truth: ArrayLike, predicted: ArrayLike, classes: Sequence[Any] | None, *, bounded: bool
) -> tuple[NDArray[np.intp], Floats]:
    """The true columns, and scores [rows, classes] of three classes or more, [rows] of two."""
    expected = _label_row(truth, "truth")
    known = classes if classes is not None else np.unique(expected).tolist()
    table = np.asarray(predicted, dtype=np.float64)
    if len(known) < 2:
        raise refusal(f"there is {len(known)} class", "give rows of two classes or more, or name the classes")
    if table.shape not in ((expected.size, len(known)), *([(expected.size,)] if len(known) == 2 else [])):
        raise refusal(
            f"{expected.size} rows of {len(known)} classes but predictions of the shape {list(table.shape)}",
            "give one column per class, and name the classes in that order",
        )
    flat = finite(table.ravel(), "predicted")
    if bounded and (flat.min() < 0 or flat.max() > 1):
        raise refusal(f"predictions lie between {flat.min():g} and {flat.max():g}", "give probabilities, not scores")
    if bounded and table.ndim == 2 and bool(np.any(np.abs(table.sum(axis=1) - 1) > 1e-3)):
        raise refusal("rows of probabilities do not sum to 1", "give the probabilities of all classes")
    return _encoded(expected, known, "truth"), table[:, 1] if table.ndim == 2 and len(known) == 2 else table


def _tables(truth: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    expected, found = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if expected.ndim != 2 or expected.shape != found.shape or expected.shape[1] < 2:
        raise refusal(
            f"relevance {list(expected.shape)} and scores {list(found.shape)} do not fit",
            "give both as [queries, documents] with two documents or more",
        )
    finite(expected.ravel(), "relevance")
    finite(found.ravel(), "scores")
    if expected.min() < 0:
        raise refusal(f"relevance goes down to {expected.min():g}", "give 0 for what is not relevant")
    return expected, found


_PARAMETERS: Final[dict[str, tuple[float, float, bool]]] = {
    "pinball": (0.0, 1.0, False),
    "fbeta": (0.01, 100.0, False),
    "top_k_accuracy": (1, 1000, True),
    "ndcg": (1, 10_000, True),
    "recall_at": (1, 10_000, True),
}
"""Least and greatest parameter, and whether it is a whole number."""


def _table() -> dict[str, Metric]:
    found = {}
    for rows in (FORMULAS_OF_CLASSES, FORMULAS_OF_NUMBERS, FORMULAS_OF_RANKINGS):
        for name, (needs, higher, meaning, formula, *default) in rows.items():
            found[name] = Metric(name, Needs(needs), higher, meaning, formula, *default)
    return found


METRICS: Final[dict[str, Metric]] = _table()
"""Every metric by its plain name."""
