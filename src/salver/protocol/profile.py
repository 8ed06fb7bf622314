"""The profile of a version's training inputs: what ordinary values look like, per feature."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

__all__ = ["ColumnProfiles", "FeatureProfile", "InputProfile", "Profile"]

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
        fitting = [spec for spec in signature.inputs if width and _width(spec) == width]
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


class ColumnProfiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The columns of numbers of a training set, measured before anybody knows what model it makes."""

    rows: int
    columns: dict[str, FeatureProfile]
    """In the order of the file, without the column that is predicted."""

    @classmethod
    def measure(cls, columns: Mapping[str, np.ndarray[Any, Any]]) -> ColumnProfiles:
        """Measure what can be: columns of text and of times, and those with an infinite value, are left out."""
        rows = max((len(column) for column in columns.values()), default=0)
        numbers = {name: column.astype(np.float64) for name, column in columns.items() if column.dtype.kind in "biuf"}
        measured = {name: _measure_feature(each) for name, each in numbers.items() if not np.isinf(each).any()}
        return cls(rows, measured)

    def profile(self, signature: Signature) -> Profile | None:
        """The profile of the inputs that they make; None where they make none.

        An input takes the columns that it is labelled with, or the one that it is called as. The only input of
        numbers takes all, if they are as many as it is wide. Nothing is guessed beyond that.
        """
        found = []
        numeric = [(spec, width) for spec in signature.inputs if (width := _width(spec))]
        for spec, width in numeric:
            names: tuple[str, ...] = ()
            if len(spec.labels) == width:
                names = spec.labels
            elif width == 1 and spec.name in self.columns:
                names = (spec.name,)
            elif len(numeric) == 1 and width == len(self.columns):
                names = tuple(self.columns)
            if names and self.rows and self.columns.keys() >= set(names):
                found.append(InputProfile(spec.name, self.rows, tuple(self.columns[name] for name in names)))
        return Profile(tuple(found)) if found else None


def _shown(spec: TensorSpec) -> str:
    return f"{spec.name!r} {spec.datatype} {list(spec.shape)}"


def _width(spec: TensorSpec) -> int:
    """How many numbers a row of the input has; 0 where that is not fixed, or it takes no rows of numbers."""
    tail = spec.shape[1:]
    if spec.shape[:1] != (-1,) or DATATYPES[spec.datatype].json_type not in (int, float) or -1 in tail:
        return 0
    return math.prod(tail)


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
