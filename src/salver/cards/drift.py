"""A table against the profile of the training inputs: which features are not as they were.

A profile has means, deviations and ranges, no distributions; what it can tell is whether those moved. A feature counts
as another one when its mean has moved by more than chance (Welch's z, corrected by Holm over all features) and by more
than a fifth of the deviation it was trained with (Cohen's small effect, 1988).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np

from salver.cards.table_facts import Array
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature
from salver.stats.multiplicity import holm

__all__ = ["Drift", "feature_columns", "measure_drift"]

_LEVEL: Final = 0.05
_SMALL_EFFECT: Final = 0.2


class Drift(msgspec.Struct, frozen=True):
    """One feature as it was in training, and as it is in a table."""

    feature: str
    trained_mean: float
    mean: float
    shift: float
    """Of the mean, in the deviations of training; infinite where that had none."""
    outside_ratio: float
    """Rows beyond the range of training."""
    trained_missing_ratio: float
    missing_ratio: float
    adjusted_p: float
    differs: bool


def feature_columns(
    profile: InputProfile, signature: Signature, columns: Sequence[str], numeric: Sequence[str]
) -> tuple[str, ...]:
    """Which columns the features of an input are: those the input names, else all numeric ones if they are as many."""
    spec = next((spec for spec in signature.inputs if spec.name == profile.input), None)
    named = spec.labels if spec else ()
    if len(named) == len(profile.features) and set(named) <= set(columns):
        return named
    return tuple(numeric) if len(numeric) == len(profile.features) else ()


def measure_drift(
    profile: Profile, signature: Signature, columns: Mapping[str, Array], target: str = ""
) -> tuple[Drift, ...]:
    """Every feature of the profile that a column can be found for."""
    numeric = [name for name, column in columns.items() if column.dtype.kind in "iufb" and name != target]
    found: list[tuple[Drift, float]] = []
    for each in profile.inputs:
        names = feature_columns(each, signature, list(columns), numeric)
        found += [
            _feature(name, columns[name], feature, each.rows)
            for name, feature in zip(names, each.features, strict=False)
            if columns[name].dtype.kind in "iufb"
        ]
    if not found:
        return ()
    adjusted = holm([p for _, p in found])
    return tuple(
        msgspec.structs.replace(each, adjusted_p=p, differs=p <= _LEVEL and abs(each.shift) > _SMALL_EFFECT)
        for (each, _), p in zip(found, adjusted, strict=True)
    )


def _feature(name: str, column: Array, trained: FeatureProfile, trained_rows: int) -> tuple[Drift, float]:
    values = column.astype(np.float64)
    present = values[np.isfinite(values)]
    before = max(trained_rows - trained.missing, 1)
    mean, spread = (float(present.mean()), float(present.std())) if len(present) else (math.nan, 0.0)
    moved = mean - trained.mean
    error = math.sqrt(trained.std**2 / before + spread**2 / max(len(present), 1))
    if not len(present):
        p_value, shift = 1.0, 0.0
    elif error > 0:
        p_value = 2 * NormalDist().cdf(-abs(moved) / error)
        shift = moved / trained.std if trained.std > 0 else math.copysign(math.inf, moved) if moved else 0.0
    else:
        p_value, shift = (1.0, 0.0) if moved == 0 else (0.0, math.copysign(math.inf, moved))
    outside = float(((present < trained.low) | (present > trained.high)).mean()) if len(present) else 0.0
    drift = Drift(
        name,
        trained.mean,
        mean,
        shift,
        outside,
        trained.missing / trained_rows,
        1 - len(present) / len(values),
        1.0,
        differs=False,
    )
    return drift, p_value
