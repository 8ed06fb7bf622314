"""What the statistics take: arrays looked at once, refused with INVALID_PARAMETER and a remedy.

A statistic of nothing, of NaN or of one class is no number, so none is given for it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from salver.protocol.errors import SalverError

__all__ = [
    "Floats",
    "amount",
    "counts",
    "finite",
    "fraction",
    "outcomes",
    "paired",
    "probabilities",
    "refusal",
    "same_length",
    "two_classes",
]

Floats: TypeAlias = NDArray[np.float64]


def refusal(message: str, remedy: str) -> SalverError:
    """The INVALID_PARAMETER to raise."""
    return SalverError("INVALID_PARAMETER", message, remedy)


def finite(values: ArrayLike, name: str, *, at_least: int = 1) -> Floats:
    """Return `values` as one row of float64; refuse other ranks, text, NaN, infinity and fewer than `at_least`."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise refusal(f"{name} holds values that are no numbers", "give numbers") from None
    if array.ndim != 1:
        raise refusal(f"{name} has the shape {list(array.shape)}", "give one number per row")
    if array.size < at_least:
        raise refusal(f"{name} has {array.size} values", f"give at least {at_least}")
    if bad := int(np.count_nonzero(~np.isfinite(array))):
        raise refusal(f"{name} holds {bad} values that are NaN or infinite", "leave those rows out, and say so")
    return array


def same_length(**arrays: Floats) -> None:
    """Refuse arrays of different lengths, by their names."""
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise refusal(f"different numbers of rows: {lengths}", "give the same rows to all")


def paired(first: ArrayLike, second: ArrayLike, *, at_least: int = 1) -> tuple[Floats, Floats]:
    """Return two rows of numbers about the same things, in the same order."""
    one, other = finite(first, "first", at_least=at_least), finite(second, "second", at_least=at_least)
    same_length(first=one, second=other)
    return one, other


def outcomes(labels: ArrayLike, name: str = "labels") -> Floats:
    """Return labels as 0.0 and 1.0; refuse anything else."""
    array = finite(labels, name)
    if bool(np.any((array != 0) & (array != 1))):
        raise refusal(f"{name} holds values other than 0 and 1", "say which class is 1 and which is 0")
    return array


def two_classes(labels: ArrayLike, name: str = "labels") -> Floats:
    """Return labels as 0.0 and 1.0 of which both occur."""
    array = outcomes(labels, name)
    if array.min() == array.max():
        raise refusal(f"all {array.size} {name} are {int(array[0])}", "give rows of both classes")
    return array


def probabilities(values: ArrayLike, name: str = "probabilities") -> Floats:
    """Return numbers within 0 and 1."""
    array = finite(values, name)
    if array.min() < 0 or array.max() > 1:
        raise refusal(f"{name} lie between {array.min():g} and {array.max():g}", "give probabilities, not scores")
    return array


def counts(values: ArrayLike, name: str) -> Floats:
    """Return counts: not negative, and not all zero."""
    array = finite(values, name)
    if array.min() < 0 or array.sum() <= 0:
        raise refusal(f"{name} has a negative count, or none above zero", "give how often each was seen")
    return array


def fraction(value: float, name: str) -> float:
    """Return a number strictly between 0 and 1, such as a level."""
    if not 0 < value < 1:
        raise refusal(f"{name} is {value:g}", "give a number between 0 and 1")
    return float(value)


def amount(count: float, total: float) -> tuple[float, float]:
    """Return `count` of `total` things: 0 <= count <= total and total > 0."""
    if not (np.isfinite(total) and total > 0 and 0 <= count <= total):
        raise refusal(f"{count:g} of {total:g} is no proportion", "give a count between 0 and a total above 0")
    return float(count), float(total)
