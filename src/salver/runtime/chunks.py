"""The parts of an answer that comes bit by bit: handing them through steps, and joining them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.runtime.model import Arrays

__all__ = ["JoinedChunks", "mapped"]

_MOST_JOINED_BYTES: Final = 64 * 2**20
"""Text of one joined answer, as much as a body may have; who wants more reads the stream."""


def mapped(chunks: Iterator[Arrays], then: Callable[[Arrays], Arrays]) -> Generator[Arrays, None, None]:
    """Each of `chunks` after `then`. Closing this closes `chunks`, if they can be closed."""
    try:
        for chunk in chunks:
            yield then(chunk)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


class JoinedChunks:
    """The chunks of one stream as one answer.

    Text outputs (BYTES) are joined element by element; of any other output the last chunk counts.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._texts = [spec.name for spec in signature.outputs if spec.datatype == "BYTES"]
        self._parts: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in self._texts}
        self._last: Arrays | None = None
        self._joined_bytes = 0

    def add(self, chunk: Arrays) -> None:
        """Take in the next chunk; raises BAD_MODEL_OUTPUT where texts cannot be joined, or not any more."""
        for name in self._texts:
            parts, array = self._parts[name], chunk[name]
            if parts and array.shape != parts[0].shape:
                raise SalverError(
                    "BAD_MODEL_OUTPUT",
                    f"output {name!r} has shape {list(array.shape)} in one chunk and {list(parts[0].shape)} in another",
                    "read the stream, which needs not be joined",
                )
            self._joined_bytes += sum(map(len, array.reshape(-1).tolist()))
            if self._joined_bytes > _MOST_JOINED_BYTES:
                raise SalverError(
                    "BAD_MODEL_OUTPUT",
                    f"the joined answer would have more than {_MOST_JOINED_BYTES} bytes of text",
                    "read the stream instead",
                )
            parts.append(array)
        self._last = chunk

    def outputs(self, rows: int) -> Arrays:
        """All outputs of the request's `rows`. Without any chunk each text is empty.

        Raises BAD_MODEL_OUTPUT where there was none and an output is no text, or may be of any length.
        """
        if self._last is None:
            return self._empty(rows)
        joined = dict(self._last)
        for name, parts in self._parts.items():
            whole = np.empty(parts[0].size, dtype=object)
            whole[:] = [b"".join(pieces) for pieces in zip(*(part.reshape(-1).tolist() for part in parts), strict=True)]
            joined[name] = whole.reshape(parts[0].shape)
        return joined

    def _empty(self, rows: int) -> Arrays:
        empty: Arrays = {}
        for spec in self._signature.outputs:
            shape = (rows, *spec.shape[1:]) if self._signature.batched else spec.shape
            if spec.datatype != "BYTES" or -1 in shape:
                raise SalverError("BAD_MODEL_OUTPUT", "the stream ended before its first chunk")
            empty[spec.name] = np.full(shape, b"", dtype=object)
        return empty
