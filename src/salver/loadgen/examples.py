"""Requests made up from a signature: ordinary rows where a profile says what is ordinary, else zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np

from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.profile import InputProfile, Profile
from salver.protocol.signature import TensorSpec

__all__ = ["example_request"]


def example_request(
    inputs: Sequence[TensorSpec],
    profile: Profile | None,
    rows: int,
    generator: np.random.Generator,
    parameters: Mapping[str, Any] | None = None,
) -> bytes:
    """A request of the Open Inference Protocol as JSON with `rows` rows.

    An input with a profile gets the training means, varied by the training spread within the
    training range; others get zeros, false or empty text. Free dimensions behind the batch are 1.
    Raises WRONG_DATATYPE for types that JSON cannot carry.
    """
    profiles = {each.input: each for each in profile.inputs} if profile else {}
    tensors = []
    for spec in inputs:
        json_type = DATATYPES[spec.datatype].json_type
        if json_type is None:
            raise SalverError(
                "WRONG_DATATYPE", f"input {spec.name!r} is {spec.datatype}, which JSON cannot carry", "pass --input"
            )
        shape = [rows if axis == 0 and size == -1 else max(size, 1) for axis, size in enumerate(spec.shape)]
        data: list[Any] = [json_type()] * prod(shape)
        known = profiles.get(spec.name)
        if known is not None and len(known.features) * rows == len(data):
            data = _ordinary(known, rows, spec.datatype, generator)
        tensors.append({"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data})
    return msgspec.json.encode({"inputs": tensors} | ({"parameters": parameters} if parameters else {}))


def _ordinary(profile: InputProfile, rows: int, datatype: str, generator: np.random.Generator) -> list[Any]:
    low, high, mean, std = (
        np.array([getattr(feature, name) for feature in profile.features]) for name in ("low", "high", "mean", "std")
    )
    with np.errstate(over="ignore"):
        drawn = np.clip(mean + std * generator.standard_normal((rows, len(mean))), low, high).reshape(-1)
    dtype = DATATYPES[datatype].dtype
    if dtype.kind == "f":
        # Cast down and back: what is written is a value of the input's own precision.
        return [float(value) for value in drawn.astype(dtype)]
    # Python's integers: the ends of 64 bits are no doubles.
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return [min(max(int(value), least), most) for value in np.rint(drawn)]
