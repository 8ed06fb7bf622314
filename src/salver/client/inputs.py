"""What people give as inputs - arrays, lists, data frames - as the tensors that a model declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from salver.client.frames import by_column, is_frame, rows_of_frame
from salver.client.prediction import EndpointMetadata
from salver.protocol.conversion import fit_datatype
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.tensor import Tensor

__all__ = ["cut", "rows_of", "to_tensors"]


def to_tensors(endpoint: str, inputs: Any, metadata: EndpointMetadata) -> list[Tensor]:
    """What a caller gives as `inputs`, in the datatypes of the model's; see `Client.predict`.

    Arrays of the declared datatype that lie in row-major order are not copied: the tensors are
    views of them, to be sent before they change.
    """
    declared = {spec.name: spec for spec in metadata.inputs}
    listed = ", ".join(map(repr, declared))
    if is_frame(inputs):
        inputs = by_column(endpoint, inputs, metadata.inputs)
    elif not isinstance(inputs, Mapping):
        if len(declared) != 1:
            raise SalverError(
                "MISSING_INPUT",
                f"endpoint {endpoint!r} takes {len(declared)} inputs; one array does not say which it is for",
                f"pass a mapping with {listed}",
            )
        inputs = {next(iter(declared)): inputs}
    tensors = []
    for name, value in inputs.items():
        if name not in declared:
            raise SalverError(
                "UNKNOWN_INPUT", f"endpoint {endpoint!r} has no input {str(name)[:80]!r}", f"its inputs are {listed}"
            )
        datatype = declared[name].datatype
        tensors.append(_tensor(name, fit_datatype(name, value, datatype), datatype))
    return tensors


def _tensor(name: str, array: np.ndarray[Any, Any], datatype: str) -> Tensor:
    if datatype == "BYTES":
        return Tensor.from_numpy(name, array)
    if array.size == 0:
        return Tensor(name, datatype, array.shape, b"")
    flat = np.ascontiguousarray(array, DATATYPES[datatype].dtype).reshape(-1)
    view: memoryview = flat.view(np.uint8).data
    return msgspec.structs.replace(Tensor(name, datatype, array.shape, b""), data=view)


def rows_of(inputs: Any) -> tuple[int, int]:
    """The rows of what `Client.predict` takes and the bytes of one, as far as known.

    1 row where it does not come apart into rows: then whoever gets it says what is wrong.
    """
    if is_frame(inputs):
        return rows_of_frame(inputs)
    values = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    sizes = {_length(value) for value in values}
    if len(sizes) != 1 or (rows := sizes.pop()) < 1:
        return 1, 0
    return rows, sum(value.nbytes for value in values if isinstance(value, np.ndarray)) // rows


def _length(value: Any) -> int:
    """The rows of one value; -1 where it does not come apart."""
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim > 0 else -1
    return len(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else -1


def cut(inputs: Any, start: int, stop: int) -> Any:
    """Some rows of what `rows_of` knows the rows of."""
    if is_frame(inputs):
        return inputs.iloc[start:stop]
    if isinstance(inputs, Mapping):
        return {name: value[start:stop] for name, value in inputs.items()}
    return inputs[start:stop]
