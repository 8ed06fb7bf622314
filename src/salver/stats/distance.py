"""How far two samples lie apart: what drift and skew are measured by.

A distance alone says little, since two samples of the same thing differ too; each comes with what to expect
without any drift, as a p-value or a threshold.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from salver.stats.checked import Floats, counts, finite, fraction, refusal, same_length
from salver.stats.libraries import scipy_special

__all__ = [
    "ChiSquare",
    "PopulationStability",
    "category_counts",
    "chi_square",
    "population_stability",
    "psi",
    "psi_threshold",
]

_MOST_BINS: Final = 1000


class PopulationStability(msgspec.Struct, frozen=True):
    """The PSI of two samples over bins of the reference, with the threshold that no drift stays below.

    `threshold` is calibrated to the sizes of the samples; the customary 0.10 and 0.25 are not, and miss small
    shifts of large samples while they cry wolf over small ones.
    """

    psi: float
    threshold: float
    p_value: float
    edges: tuple[float, ...]
    reference_counts: tuple[int, ...]
    current_counts: tuple[int, ...]


class ChiSquare(msgspec.Struct, frozen=True):
    """Whether two samples have the same shares of categories; `cramers_v`, from 0 to 1, says how different.

    `least_expected` below 5 says that the p-value is rough (Cochran 1954, Biometrics 10, 417): put rare
    categories together.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    cramers_v: float
    least_expected: float


def psi(reference: ArrayLike, current: ArrayLike, *, smoothing: float = 0.0) -> float:
    """The population stability index over the same bins: the sum of (c - r) ln(c / r), c and r being shares.

    It is the Jeffreys divergence, KL(c || r) + KL(r || c). `smoothing` is added to every count; without it
    an empty bin is refused, since it would make the index infinite.

    >>> round(psi([25, 25, 25, 25], [10, 20, 30, 40]), 6)
    0.228217
    """
    before, now = _shares(reference, current, smoothing)
    _refuse_empty(before, now)
    return float(np.sum((now - before) * np.log(now / before)))


def psi_threshold(bins: int, reference_rows: int, current_rows: int, *, level: float = 0.95) -> float:
    """What the PSI of two samples without drift stays below with chance `level`.

    Without drift PSI / (1/N + 1/M) follows chi-square with bins - 1 degrees of freedom (Yurdakul and Naranjo 2020,
    J. Risk Model Validation 14, 89). It wants about five rows per bin in either sample.

    >>> round(psi_threshold(10, 1000, 1000), 4)
    0.0338
    """
    scale = _psi_scale(bins, reference_rows, current_rows)
    return scale * float(scipy_special().chdtri(bins - 1, 1 - fraction(level, "level")))


def population_stability(
    reference: ArrayLike, current: ArrayLike, *, bins: int = 10, level: float = 0.95
) -> PopulationStability:
    """The PSI of two samples of numbers over the reference's quantiles.

    Equal values share a bin, so that a column with few values has fewer bins; values beyond the reference
    count in the outer bins. One half is added to every count where a bin is empty.
    """
    before, now = finite(reference, "reference", at_least=2), finite(current, "current")
    if not 2 <= bins <= _MOST_BINS:
        raise refusal(f"{bins} bins", f"give 2 to {_MOST_BINS}")
    if before.min() == before.max():
        raise refusal(f"the reference is {before[0]:g} throughout", "compare the column by its categories")
    edges = np.unique(np.quantile(before, np.arange(1, bins) / bins, method="inverted_cdf"))
    # A bin above the greatest reference value would be empty by construction; a column that is mostly its
    # greatest value has no other edge, and is cut right below that value.
    inner = edges[edges < before.max()]
    edges = inner if inner.size else before[before < before.max()].max(keepdims=True)
    first, second = (
        np.bincount(np.searchsorted(edges, one, side="left"), minlength=edges.size + 1) for one in (before, now)
    )
    empty = min(int(first.min()), int(second.min())) == 0
    found = psi(first, second, smoothing=0.5 if empty else 0.0)
    scale = _psi_scale(first.size, before.size, now.size)
    return PopulationStability(
        found,
        psi_threshold(first.size, before.size, now.size, level=level),
        float(scipy_special().chdtrc(first.size - 1, found / scale)),
        tuple(edges.tolist()),
        tuple(first.tolist()),
        tuple(second.tolist()),
    )


def _psi_scale(bins: int, reference_rows: int, current_rows: int) -> float:
    if bins < 2 or min(reference_rows, current_rows) < 1:
        raise refusal(f"{bins} bins, {reference_rows} and {current_rows} rows", "give 2 bins or more, and rows")
    return 1 / reference_rows + 1 / current_rows


def category_counts(reference: ArrayLike, current: ArrayLike) -> tuple[tuple[str, ...], Floats, Floats]:
    """The categories that occur in either sample, sorted, and how often each does in both."""
    before, now = np.asarray(reference).astype(str), np.asarray(current).astype(str)
    if not before.size or not now.size or before.ndim != 1 or now.ndim != 1:
        raise refusal(f"samples of {before.size} and {now.size} values", "give two rows of categories")
    names, place = np.unique(np.concatenate([before, now]), return_inverse=True)
    first = np.bincount(place[: before.size], minlength=names.size).astype(np.float64)
    second = np.bincount(place[before.size :], minlength=names.size).astype(np.float64)
    return tuple(names.tolist()), first, second


def chi_square(reference_counts: ArrayLike, current_counts: ArrayLike) -> ChiSquare:
    """Pearson's chi-square test of homogeneity over the same categories, without a continuity correction."""
    table = np.stack(_counted(reference_counts, current_counts))
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        raise refusal("both samples hold one category", "give a column with two or more")
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    freedom = table.shape[1] - 1
    return ChiSquare(
        statistic,
        freedom,
        float(scipy_special().chdtrc(freedom, statistic)),
        math.sqrt(statistic / float(table.sum())),
        float(expected.min()),
    )


def _counted(reference: ArrayLike, current: ArrayLike) -> tuple[Floats, Floats]:
    before, now = counts(reference, "reference counts"), counts(current, "current counts")
    same_length(reference=before, current=now)
    return before, now


def _shares(reference: ArrayLike, current: ArrayLike, smoothing: float) -> tuple[Floats, Floats]:
    if not (math.isfinite(smoothing) and smoothing >= 0):
        raise refusal(f"smoothing by {smoothing:g}", "give 0 or more")
    before, now = (one + smoothing for one in _counted(reference, current))
    return before / before.sum(), now / now.sum()


def _refuse_empty(before: Floats, now: Floats) -> None:
    if empty := int(np.sum((before == 0) | (now == 0))):
        raise refusal(f"{empty} of {before.size} bins are empty in one sample", "give smoothing, or fewer bins")
