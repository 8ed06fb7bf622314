"""What a server says of an endpoint, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from salver.client.frames import to_frame
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec

__all__ = ["EndpointMetadata", "Prediction", "Timing", "join_predictions", "of_one_version", "read_timing"]

_SPAN: Final = re.compile(r'([\w-]+)(?:;dur=([0-9.]+))?(?:;desc="([^"]*)")?')
_MILLISECONDS: Final = 1e-3


class EndpointMetadata(msgspec.Struct, frozen=True):
    """What an endpoint takes and gives, as its server describes it."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Timing(msgspec.Struct, frozen=True):
    """Where the time of an answer went, in the server's own words; the network is not in it."""

    queue_s: float = 0.0
    """Until a replica was free."""
    hold_s: float = 0.0
    """For a fuller batch, although a replica was free."""
    compute_s: float = 0.0
    """The batch in the model."""
    total_s: float = 0.0
    """From reception to the writing of the answer."""
    batch_rows: int = 0
    placement: str = ""
    load_s: float = 0.0
    """Before all that, for the version to be loaded."""
    turn_s: float = 0.0
    """And for the step before in its session."""


def read_timing(text: str) -> Timing | None:
    """What a Server-Timing header says; None where it says nothing.

    >>> timing = read_timing('turn;dur=250, queue;dur=0.4, compute;dur=2.1, batch;desc="16", total;dur=253')
    >>> timing.turn_s, timing.load_s, timing.queue_s, timing.total_s, timing.batch_rows
    (0.25, 0.0, 0.0004, 0.253, 16)
    """
    durations: dict[str, float] = {}
    said: dict[str, str] = {}
    for name, duration, description in _SPAN.findall(text):
        said[name] = description
        try:
            durations[name] = round(float(duration) * _MILLISECONDS, 9)
        except ValueError:
            continue
    if not said:
        return None
    rows = said.get("batch", "")
    return Timing(
        **{f"{name}_s": durations.get(name, 0.0) for name in ("queue", "hold", "compute", "total", "load", "turn")},
        batch_rows=int(rows) if rows.isascii() and rows.isdigit() else 0,
        placement=said.get("placement", ""),
    )


class Prediction(Mapping[str, np.ndarray[Any, Any]]):
    """The outputs of one prediction by name, and which version gave them under which request id.

    BYTES outputs are object arrays of bytes, BF16 outputs the `uint16` of their bits. The
    arrays belong to the caller. `timing` is there if it was asked for, or the server always says.
    """

    __slots__ = ("_arrays", "_index", "endpoint", "model_version", "request_id", "timing", "warnings")

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        *,
        endpoint: str,
        model_version: str,
        request_id: str,
        warnings: tuple[str, ...],
        timing: Timing | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self._index: Any = None
        self.endpoint = endpoint
        self.model_version = model_version
        self.request_id = request_id
        self.warnings = warnings
        self.timing = timing

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; there are {', '.join(map(repr, self._arrays))}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self.items())
        return f"<Prediction of {self.endpoint}@{self.model_version}: {outputs}>"

    def to_pandas(self) -> Any:
        """The outputs as a DataFrame, with the index of the frame they were asked for with.

        An output with one value a row is a column of its name; one with several is as many columns, NAME_0,
        NAME_1 and so on. BYTES become text where all are. Raises WRONG_SHAPE for outputs that are no
        tables, UNSUPPORTED where pandas is not installed.
        """
        return to_frame(self._arrays, self._index)

    def indexed_like(self, inputs: Any) -> Prediction:
        """Keep the index of what was asked with, if it has one; returns itself."""
        index = getattr(inputs, "index", None)
        # A list has a method of that name.
        self._index = None if callable(index) else index
        return self


def join_predictions(parts: Sequence[tuple[int, Prediction]]) -> Prediction:
    """One prediction of many, each with the number of its first row; raises CONFLICT as `of_one_version`.

    It has the request id of the first one, and no timing. A warning begins with the rows it is about.
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
