"""Some of the last inputs of a version, for its successor, or itself when it is loaded again, to be tried on.

They are kept in memory only, few and small: one request a second at most, 16 in all, a mebibyte; of all
versions that are not loaded, 16 mebibytes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from salver.protocol.request import Request
from salver.protocol.signature import Signature
from salver.protocol.tensor import Tensor

__all__ = ["InputsAtRest", "RecentInputs", "Sample"]

_EVERY_S: Final = 1.0
_MOST: Final = 16
_MOST_BYTES: Final = 2**20
_LARGEST_BYTES: Final = 2**18
_MOST_AT_REST_BYTES: Final = 2**24
_OVERHEAD_BYTES: Final = 1024
"""What a sample takes beside its data, about."""


class Sample(NamedTuple):
    """The inputs of one request."""

    inputs: Mapping[str, Tensor]
    rows: int
    size_bytes: int


class RecentInputs:
    """The last inputs of one version behind an endpoint. Whoever has a request looks at `due_s` first."""

    __slots__ = ("_bytes", "_samples", "due_s")

    def __init__(self, before: Iterable[Sample] = ()) -> None:
        self.due_s = 0.0
        """When the next one is wanted."""
        self._samples = deque(before)
        self._bytes = sum(sample.size_bytes for sample in self._samples)

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


class InputsAtRest:
    """The last inputs of versions that were unloaded, by endpoint; those that have been there longest make room."""

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Signature, tuple[Sample, ...]]] = OrderedDict()
        self._bytes = 0

    def keep(self, endpoint: str, signature: Signature, samples: tuple[Sample, ...]) -> None:
        """Keep what a version of this signature was asked; nothing where that is nothing."""
        self.forget(endpoint)
        if not samples:
            return
        self._kept[endpoint] = (signature, samples)
        self._bytes += _bytes_of(samples)
        while self._bytes > _MOST_AT_REST_BYTES:
            self._bytes -= _bytes_of(self._kept.popitem(last=False)[1][1])

    def take(self, endpoint: str, signature: Signature) -> tuple[Sample, ...]:
        """Give back what is kept of an endpoint; nothing if that is of another signature. It is kept no longer.

        So inputs that a version does not survive this time cannot keep it from being loaded at all.
        """
        of, samples = self._kept.pop(endpoint, (None, ()))
        self._bytes -= _bytes_of(samples)
        return samples if of == signature else ()

    def forget(self, endpoint: str) -> None:
        """An endpoint is gone."""
        self._bytes -= _bytes_of(self._kept.pop(endpoint, (None, ()))[1])

    def __repr__(self) -> str:
        return f"<InputsAtRest of {len(self._kept)} endpoints in {self._bytes} bytes>"


def _bytes_of(samples: Iterable[Sample]) -> int:
    return sum(sample.size_bytes + _OVERHEAD_BYTES for sample in samples)
