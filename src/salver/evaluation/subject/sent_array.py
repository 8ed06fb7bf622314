"""A tensor on its way to a child process or back."""

from __future__ import annotations

import msgspec

from salver.evaluation.subject.rows import Array
from salver.protocol.tensor import Tensor

__all__ = ["SentArray"]


class SentArray(msgspec.Struct, frozen=True):
    """An array as bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, name: str, array: Array) -> SentArray:
        """Raises WRONG_DATATYPE for types that the protocol lacks."""
        tensor = Tensor.from_numpy(name, array)
        return cls(name, tensor.datatype, tensor.shape, bytes(tensor.data))

    def numpy(self) -> Array:
        """The array, to be read only."""
        return Tensor(self.name, self.datatype, self.shape, self.data).numpy()
