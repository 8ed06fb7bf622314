"""Which requests of a version may share a batch, and what each counts in it.

Requests of one shape can always be joined. Where a version declares a pad, shorter ones are filled
up; and where it declares whose *length* matters, only those of similar length are put together, since a
batch is computed at the length of its longest.
"""

from __future__ import annotations

from typing import Any, Final

from salver.protocol.request import Request
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import VersionManifest
from salver.protocol.tensor import Tensor, unpack_bytes_elements

__all__ = ["Classes", "is_alike", "padded_length"]

_SHORTEST: Final = 16


def padded_length(length: int) -> int:
    """The length at which rows of `length` are counted: 16, 24, 32, 48, 64, 96 and so on, the next above.

    Two sizes for each doubling: no row of a class is more than half as long again as another.

    >>> [padded_length(n) for n in (0, 16, 17, 33, 48, 49, 1000)]
    [16, 16, 24, 48, 48, 64, 1024]
    """
    if length <= _SHORTEST:
        return _SHORTEST
    power = 1 << (length - 1).bit_length()
    return power * 3 // 4 if length <= power * 3 // 4 else power


class Classes:
    """The classes of one version's requests, prepared once because every request is asked about."""

    __slots__ = ("_cost", "_fixed", "_length", "costed", "pads", "uniform")

    def __init__(self, manifest: VersionManifest) -> None:
        self._cost = manifest.cost
        self._length = manifest.length
        self.costed = bool(self._cost or self._length)
        """Whether a request's cost is anything but its rows."""
        self.pads = {spec.name: spec.pad for spec in manifest.signature.inputs if spec.pad is not None}
        self._fixed = {spec.name for spec in manifest.signature.inputs if spec.pad is None}
        self.uniform = not self._length and all(map(_may_join, manifest.signature.inputs))
        """Whether any two requests may share a batch, at the cost of their rows or of their one input."""

    def of(self, request: Request) -> tuple[object, int]:
        """The class of a request, and its cost."""
        cost = self.cost(request)
        if self.uniform:
            return None, cost
        shape: tuple[Any, ...] = tuple(
            sorted(
                (name, tensor.shape[1:] if name in self._fixed else len(tensor.shape))
                for name, tensor in request.inputs.items()
            )
        )
        return (cost // request.rows if self._length else 0, shape), cost

    def cost(self, request: Request) -> int:
        """What a request counts: its rows, its rows times their padded length, or the elements of its `cost` input.

        Never nothing, or a tenant could send without end what costs it no part of its share.
        """
        if self._length:
            tensor = request.inputs.get(self._length)
            return request.rows * padded_length(0 if tensor is None else _length(tensor))
        tensor = request.inputs.get(self._cost) if self._cost else None
        return request.rows if tensor is None else max(1, tensor.size)


def is_alike(signature: Signature) -> bool:
    """Whether any two rows are of one size, so that the time one takes says what another will."""
    return all(-1 not in spec.shape[1:] and spec.datatype != "BYTES" for spec in signature.inputs)


def _may_join(spec: TensorSpec) -> bool:
    return (-1 not in spec.shape[1:] or spec.pad is not None) and not spec.optional


def _length(tensor: Tensor) -> int:
    """Of the longest row: bytes of text, else elements."""
    rows = tensor.shape[0] if tensor.shape else 1
    if tensor.datatype != "BYTES":
        return tensor.size // max(1, rows)
    if tensor.size == 1:
        return len(tensor.data) - 4
    return max(map(len, unpack_bytes_elements(tensor.data, tensor.size, tensor.name)), default=0)
