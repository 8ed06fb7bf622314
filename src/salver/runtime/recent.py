"""Some of the last inputs of a version, for its successor to be tried on before it serves.

They are kept in memory only, few and small: one request a second at most, 16 in all, a mebibyte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from salver.protocol.request import Request
from salver.protocol.tensor import Tensor

__all__ = ["RecentInputs", "Sample"]

_EVERY_S: Final = 1.0
_MOST: Final = 16
_MOST_BYTES: Final = 2**20
_LARGEST_BYTES: Final = 2**18


class Sample(NamedTuple):
    """The inputs of one request."""

    inputs: Mapping[str, Tensor]
    rows: int
    size_bytes: int


class RecentInputs:
    """The last inputs of one version behind an endpoint. Whoever has a request looks at `due_s` first."""

    __slots__ = ("_bytes", "_samples", "due_s")

    def __init__(self) -> None:
        self.due_s = 0.0
        """When the next one is wanted."""
        self._samples: deque[Sample] = deque()
        self._bytes = 0

    def take(self, request: Request, now_s: float) -> None:
        """Keep a copy of a request's inputs, and let go of the oldest for it."""
        self.due_s = now_s + _EVERY_S
        size_bytes = sum(len(tensor.data) for tensor in request.inputs.values())
        if size_bytes > _LARGEST_BYTES:
            return
        # What a client sent lies in one piece of memory with the rest of its request; a copy lets go of that.
        copied = {
            name: Tensor(tensor.name, tensor.datatype, tensor.shape, bytes(tensor.data))
            for name, tensor in request.inputs.items()
        }
        self._samples.append(Sample(copied, request.rows, size_bytes))
        self._bytes += size_bytes
        while self._bytes > _MOST_BYTES or len(self._samples) > _MOST:
            self._bytes -= self._samples.popleft().size_bytes

    def samples(self) -> tuple[Sample, ...]:
        """The inputs, oldest first."""
        return tuple(self._samples)

    def __repr__(self) -> str:
        return f"<RecentInputs {len(self._samples)} in {self._bytes} bytes>"
