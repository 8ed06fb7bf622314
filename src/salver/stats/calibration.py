"""Whether a probability of 0.8 comes true 8 times of 10: calibration errors, curves, and Brier's score taken apart.

Labels are 0 and 1, probabilities those of 1. For several classes ask about the top one: `top_label` gives
whether it was right and how probable it was said to be, and these go in as labels and probabilities.
"""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from salver.stats.checked import Floats, outcomes, probabilities, refusal, same_length
from salver.stats.intervals import Interval, wilson

__all__ = [
    "Binning",
    "BrierDecomposition",
    "CalibrationError",
    "ReliabilityBin",
    "Spiegelhalter",
    "brier_decomposition",
    "calibration_error",
    "reliability_curve",
    "spiegelhalter",
    "top_label",
]

Binning: TypeAlias = Literal["width", "mass", "distinct"]
"""Bins of equal width, of about equally many rows (equal values stay together), or one per distinct value."""

_MOST_BINS: Final = 1000


class ReliabilityBin(msgspec.Struct, frozen=True):
    """The rows whose probabilities lie within `low` and `high`: their mean, and how often 1 came."""

    low: float
    high: float
    rows: int
    predicted: float
    observed: Interval


class CalibrationError(msgspec.Struct, frozen=True):
    """How far predicted and observed lie apart, over bins.

    `ece` is the mean distance weighted by rows (Naeini et al. 2015, AAAI), `rms` the root of the mean square,
    `mce` the largest. Few rows per bin make all of them too large even of a perfect model; the debiased ones take
    out what noise adds: `rms_debiased` by Kumar, Liang and Ma (2019, NeurIPS, section 5), and `ece_debiased` as
    their software does it for the first norm. Neither is below 0.
    """

    rows: int
    bins: int
    ece: float
    ece_debiased: float
    rms: float
    rms_debiased: float
    mce: float


class BrierDecomposition(msgspec.Struct, frozen=True):
    """Brier's score = reliability - resolution + uncertainty + within_variance - within_covariance, exactly.

    The three terms of Murphy (1973, J. Applied Meteorology 12, 595), and the two that Stephenson, Coelho and
    Jolliffe (2008, Weather and Forecasting 23, 752, eq. 8) add where a bin holds different probabilities.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float


class Spiegelhalter(msgspec.Struct, frozen=True):
    """Spiegelhalter's z: above 0 when the score is worse than the probabilities promise."""

    z: float
    p_value: float


def reliability_curve(
    labels: ArrayLike, predicted: ArrayLike, *, bins: int = 10, binning: Binning = "width", level: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """The bins that hold rows, from low to high, with Wilson's interval around what was observed."""
    truth, said = _rows(labels, predicted)
    place = _places(said, bins, binning)
    return tuple(
        ReliabilityBin(
            float(inside.min()),
            float(inside.max()),
            inside.size,
            float(inside.mean()),
            wilson(float(truth[place == one].sum()), inside.size, level=level),
        )
        for one in np.unique(place)
        for inside in (said[place == one],)
    )


def calibration_error(
    labels: ArrayLike, predicted: ArrayLike, *, bins: int = 10, binning: Binning = "width"
) -> CalibrationError:
    """The calibration errors over `bins`."""
    truth, said = _rows(labels, predicted)
    rows, mean_said, mean_truth = _sums(truth, said, _places(said, bins, binning))
    weight, gap = rows / truth.size, mean_said - mean_truth
    noise = mean_truth * (1 - mean_truth)
    # One row has no variance to take out: its 0 / 0 counts as 0.
    square = weight @ (gap**2 - noise / np.maximum(rows - 1, 1))
    ece = float(weight @ np.abs(gap))
    expected = _folded_mean(np.abs(gap), np.sqrt(noise / rows))
    debiased = 2 * ece - float(weight @ expected)
    return CalibrationError(
        rows=truth.size,
        bins=rows.size,
        ece=ece,
        ece_debiased=max(debiased, 0.0),
        rms=math.sqrt(float(weight @ gap**2)),
        rms_debiased=math.sqrt(max(float(square), 0.0)),
        mce=float(np.abs(gap).max()),
    )


def _folded_mean(mean: Floats, deviation: Floats) -> Floats:
    """E|X| of normal X: what a bin's distance is expected to be when `mean` is the true one."""
    ratio = np.divide(mean, deviation, out=np.full_like(mean, np.inf), where=deviation > 0)
    normal = np.array([math.erf(one / math.sqrt(2)) for one in ratio])
    folded: Floats = deviation * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + mean * normal
    return folded


def brier_decomposition(
    labels: ArrayLike, predicted: ArrayLike, *, bins: int = 10, binning: Binning = "width"
) -> BrierDecomposition:
    """Brier's score, the mean of (probability - label)^2, in the terms that say why it is what it is."""
    truth, said = _rows(labels, predicted)
    place = _places(said, bins, binning)
    rows, mean_said, mean_truth = _sums(truth, said, place)
    weight, base = rows / truth.size, float(truth.mean())
    from_said, from_truth = said - mean_said[place], truth - mean_truth[place]
    return BrierDecomposition(
        score=float(np.mean((said - truth) ** 2)),
        reliability=float(weight @ (mean_said - mean_truth) ** 2),
        resolution=float(weight @ (mean_truth - base) ** 2),
        uncertainty=base * (1 - base),
        within_variance=float(np.mean(from_said**2)),
        within_covariance=2 * float(np.mean(from_said * from_truth)),
    )


def spiegelhalter(labels: ArrayLike, predicted: ArrayLike) -> Spiegelhalter:
    """Spiegelhalter's test that the probabilities are true (1986, Statistics in Medicine 5, 421).

    It needs no bins. Probabilities that are all 0, 0.5 or 1 leave it no variance and are refused.
    """
    truth, said = _rows(labels, predicted)
    lean = 1 - 2 * said
    variance = float(np.sum(lean**2 * said * (1 - said)))
    if variance <= 0:
        raise refusal("all probabilities are 0, 0.5 or 1", "give probabilities between; the test has no variance here")
    z = float(np.sum((truth - said) * lean)) / math.sqrt(variance)
    return Spiegelhalter(z, math.erfc(abs(z) / math.sqrt(2)))


def top_label(classes: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    """Of several classes: whether the most probable one was right, and its probability (Guo et al. 2017, ICML).

    `classes` holds each row's true class as a column number of `predicted`, [rows, classes]. The first of
    equally probable classes is taken.
    """
    table, truth = np.asarray(predicted, dtype=np.float64), np.asarray(classes)
    if table.ndim != 2 or table.shape[0] != truth.size or truth.ndim != 1 or not truth.size:
        raise refusal(
            f"classes {list(truth.shape)} and probabilities {list(table.shape)} do not fit",
            "give one class per row of probabilities",
        )
    top = table.argmax(axis=1)
    return (top == truth).astype(np.float64), probabilities(table.max(axis=1))


def _rows(labels: ArrayLike, predicted: ArrayLike) -> tuple[Floats, Floats]:
    truth, said = outcomes(labels), probabilities(predicted)
    same_length(labels=truth, probabilities=said)
    return truth, said


def _places(said: Floats, bins: int, binning: Binning) -> NDArray[np.intp]:
    """Each row's bin, numbered without gaps; equal probabilities share one, whatever their order."""
    if not 1 <= bins <= _MOST_BINS:
        raise refusal(f"{bins} bins", f"give 1 to {_MOST_BINS}")
    raw: NDArray[np.generic]
    if binning == "width":
        raw = np.minimum((said * bins).astype(np.intp), bins - 1)
    elif binning == "mass":
        edges = np.quantile(said, np.arange(1, bins) / bins, method="inverted_cdf")
        raw = np.searchsorted(np.unique(edges), said, side="left")
    elif binning == "distinct":
        raw = said
    else:
        raise refusal(f"no binning {binning!r}", "give width, mass or distinct")
    place: NDArray[np.intp] = np.unique(raw, return_inverse=True)[1]
    return place


def _sums(truth: Floats, said: Floats, place: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
    """Per bin: rows, mean probability, share of 1."""
    rows = np.bincount(place).astype(np.float64)
    return rows, np.bincount(place, said) / rows, np.bincount(place, truth) / rows
