"""What a server says of an endpoint, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec

__all__ = ["EndpointMetadata", "Prediction", "join_predictions", "of_one_version"]


class EndpointMetadata(msgspec.Struct, frozen=True):
    """What an endpoint takes and gives, as its server describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Prediction(Mapping[str, np.ndarray[Any, Any]]):
    """The outputs of one prediction by name, and which version gave them under which request id.

    BYTES outputs are object arrays of bytes, BF16 outputs the `uint16` of their bits. The
    arrays belong to the caller.
    """

    __slots__ = ("_arrays", "endpoint", "model_version", "request_id", "warnings")

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        *,
        endpoint: str,
        model_version: str,
        request_id: str,
        warnings: tuple[str, ...],
    ) -> None:
        self._arrays = dict(arrays)
        self.endpoint = endpoint
        self.model_version = model_version
        self.request_id = request_id
        self.warnings = warnings

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.items())
        return f"<Prediction of {self.endpoint}@{self.model_version}: {outputs}>"


def join_predictions(parts: Sequence[tuple[int, Prediction]]) -> Prediction:
    """One prediction of many, each with the number of its first row; raises CONFLICT as `of_one_version`.

    It has the request id of the first one. A warning begins with the rows it is about.
    """
    first = parts[0][1]
    if len(parts) == 1:
        return first
    version = of_one_version(first.endpoint, [part.model_version for _, part in parts])
    arrays = {name: np.concatenate([part[name] for _, part in parts]) for name in first}
    warnings = tuple(
        f"rows {start}-{start + len(part[next(iter(part))]) - 1}: {warning}"
        for start, part in parts
        for warning in part.warnings
    )
    return Prediction(
        arrays, endpoint=first.endpoint, model_version=version, request_id=first.request_id, warnings=warnings
    )


def of_one_version(endpoint: str, versions: Sequence[str]) -> str:
    """The version that gave all of several answers; raises CONFLICT where they are not of one."""
    for version in versions:
        if version != versions[0]:
            raise SalverError(
                "CONFLICT",
                f"endpoint {endpoint!r} went from version {versions[0]} to {version} while the rows were sent",
                "send them again: one answer never mixes versions",
            )
    return versions[0]
