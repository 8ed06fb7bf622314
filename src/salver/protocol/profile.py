"""The profile of a version's training inputs: what ordinary values look like, per feature."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

__all__ = ["FeatureProfile", "InputProfile", "Profile"]

_SAFE_TO_SQUARE: Final = 1e140


class FeatureProfile(msgspec.Struct, frozen=True):
    """One feature over the training rows. `mean` and `std` are in the feature's own unit."""

    low: float
    high: float
    mean: float
    std: float
    missing: int
    """Rows where the feature was NaN."""


class InputProfile(msgspec.Struct, frozen=True):
    """The features of one input, row-major over its shape behind the batch dimension."""

    input: str
    rows: int
    features: tuple[FeatureProfile, ...]


class Profile(msgspec.Struct, frozen=True):
    """The profiles of a version's numeric inputs."""

    inputs: tuple[InputProfile, ...]

    @classmethod
    def measure(cls, data: np.ndarray[Any, Any], signature: Signature) -> Profile:
        """Measure training rows for the one numeric input they belong to.

        `data` is [rows, features] or [rows, ...] with the trailing shape of that input.
        Raises INVALID_ARTIFACT when no input, or more than one, takes such rows, and when a value
        is infinite: a range without an end says nothing, and clipping it would invent one.
        """
        width = int(np.prod(data.shape[1:], dtype=np.int64))
        fitting = [spec for spec in signature.inputs if _takes(spec, width)]
        if len(fitting) != 1 or not len(data) or data.dtype.kind not in "biuf":
            raise SalverError(
                "INVALID_ARTIFACT",
                f"a profile of {data.dtype} rows of {width} features fits {len(fitting)} inputs of the model, "
                f"which takes {', '.join(_shown(spec) for spec in signature.inputs)}",
                "give at least one row of numbers, as wide as exactly one input",
            )
        table = data.reshape(len(data), width).astype(np.float64)
        infinite = np.argwhere(np.isinf(table))
        if len(infinite):
            row, feature = infinite[0].tolist()
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{len(infinite)} values of the profile's rows are infinite, the first in row {row}, feature {feature}",
                "remove those rows, or mark missing values as NaN",
            )
        return cls((InputProfile(fitting[0].name, len(data), tuple(map(_measure_feature, table.T))),))


def _shown(spec: TensorSpec) -> str:
    return f"{spec.name!r} {spec.datatype} {list(spec.shape)}"


def _takes(spec: TensorSpec, width: int) -> bool:
    tail = spec.shape[1:]
    return (
        spec.shape[:1] == (-1,)
        and DATATYPES[spec.datatype].json_type in (int, float)
        and -1 not in tail
        and int(np.prod(tail, dtype=np.int64)) == width
    )


def _measure_feature(column: np.ndarray[Any, Any]) -> FeatureProfile:
    present = column[~np.isnan(column)]
    if not len(present):
        return FeatureProfile(-sys.float_info.max, sys.float_info.max, 0.0, 0.0, len(column))
    # Sums of values near the end of the float range overflow; those of scaled values do not.
    largest = float(np.abs(present).max())
    scale = largest if largest > _SAFE_TO_SQUARE else 1.0
    scaled = present / scale
    return FeatureProfile(
        float(present.min()),
        float(present.max()),
        float(scaled.mean() * scale),
        float(scaled.std() * scale),
        len(column) - len(present),
    )
