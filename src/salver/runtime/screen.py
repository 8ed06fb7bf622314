"""Holding batches against the profile of the training inputs, once per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from salver.protocol.datatypes import DATATYPES
from salver.protocol.tables import VersionManifest
from salver.runtime.batch import Entry
from salver.runtime.model import Arrays

__all__ = ["ProfileScreen"]


class ProfileScreen:
    """The lowest and highest training value of each feature, for the inputs that have a profile."""

    def __init__(self, manifest: VersionManifest) -> None:
        datatypes = {spec.name: spec.datatype for spec in manifest.signature.inputs}
        self._ranges: list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        for profile in manifest.profile.inputs if manifest.profile and manifest.signature.batched else ():
            # In the input's own precision, or the training value 0.1 would lie outside [0.1, 0.1].
            dtype = DATATYPES[datatypes[profile.input]].dtype
            dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
            with np.errstate(over="ignore"):
                low = np.array([feature.low for feature in profile.features]).astype(dtype)
                high = np.array([feature.high for feature in profile.features]).astype(dtype)
            self._ranges.append((profile.input, low, high))

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def outside(self, entries: Sequence[Entry], inputs: Arrays) -> Iterator[tuple[Entry, str]]:
        """Each entry of a batch with values outside the training data, and what to tell its caller.

        NaN is outside everything.
        """
        for name, low, high in self._ranges:
            array = inputs.get(name)
            if array is None:
                continue
            table = array.reshape(len(array), -1)
            inside = (table >= low) & (table <= high)
            if inside.all():
                continue
            start = 0
            for entry in entries:
                stop = start + entry.request.rows
                found = np.argwhere(~inside[start:stop])
                if len(found):
                    row, feature = found[0].tolist()
                    message = (
                        f"{len(found)} values of input {name!r} lie outside the training data, the first in row {row}, "
                        f"feature {feature}: {table[start + row, feature]:g} is not in "
                        f"[{low[feature]:g}, {high[feature]:g}]"
                    )
                    yield entry, message
                start = stop
