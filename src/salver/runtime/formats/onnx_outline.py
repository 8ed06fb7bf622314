"""An ONNX model without its weights: what its inputs and outputs are does not depend on them.

Weights are nearly all of a large file. ONNX Runtime reads them twice before it says what a model takes; an outline has
their places in a file of zeros instead, which takes no time to read, no memory and no room on disk. What it checks of
weights without computing - their number and type - it checks of the outline as well.
"""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from salver.runtime.formats import Source
from salver.runtime.formats.onnx_data import Bytes, Field, external_paths, fields_of

__all__ = ["outlined"]

_LARGE_BYTES: Final = 64 * 2**10
"""Smaller tensors stay: the shapes of others may be computed from them."""
_WEIGHTS: Final = "weights"
_PAGE_BYTES: Final = 4096

# The numbers of onnx.proto3.
_GRAPH: Final = 7
_INITIALIZER: Final = 5
_RAW_DATA: Final = 9
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION_EXTERNAL: Final = b"\x70\x01"
"""Field 14, the number 1."""


@contextlib.contextmanager
def outlined(source: Source) -> Iterator[Source]:
    """The same model with zeros for weights, while the block lasts; itself where its weights lie in other files.

    REQUIRES a file on disk whose fields can be read: see `require_own_data`.
    """
    if source.content is not None or source.main.stat().st_size < _LARGE_BYTES:
        yield source
        return
    with source.main.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if external_paths(content):
            yield source
            return
        weights = _Weights(content)
        model = weights.outline()
    with tempfile.TemporaryDirectory(prefix="salver-outline-") as made:
        main = Path(made, source.main.name)
        main.write_bytes(model)
        with Path(made, _WEIGHTS).open("wb") as zeros:
            zeros.truncate(weights.size_bytes)
        yield Source(main.parent, main)


class _Weights:
    """The large tensors of a model, as far as they have been moved out of it."""

    def __init__(self, content: Bytes) -> None:
        self._content = content
        self.size_bytes = 0

    def outline(self) -> bytes:
        """The model without them."""
        return self._rewritten(0, len(self._content), _GRAPH, self._graph)

    def _graph(self, graph: Field) -> bytes:
        return self._rewritten(graph.start, graph.stop, _INITIALIZER, self._tensor)

    def _rewritten(self, begin: int, end: int, number: int, rewrite: Callable[[Field], bytes]) -> bytes:
        """A message, the fields of one number written anew."""
        return b"".join(
            _field(number, rewrite(field)) if field.number == number and field.has_content else self._whole(field)
            for field in fields_of(self._content, begin, end)
        )

    def _tensor(self, tensor: Field) -> bytes:
        fields = list(fields_of(self._content, tensor.start, tensor.stop))
        raw = [field for field in fields if field.number == _RAW_DATA and field.has_content]
        length = raw[-1].stop - raw[-1].start if raw else 0
        if length < _LARGE_BYTES:
            return self._content[tensor.start : tensor.stop]
        place = {"location": _WEIGHTS, "offset": str(self.size_bytes), "length": str(length)}
        self.size_bytes += -(-length // _PAGE_BYTES) * _PAGE_BYTES
        kept = b"".join(self._whole(field) for field in fields if field.number != _RAW_DATA)
        entries = (_field(1, name.encode()) + _field(2, value.encode()) for name, value in place.items())
        return kept + b"".join(_field(_EXTERNAL_DATA, entry) for entry in entries) + _DATA_LOCATION_EXTERNAL

    def _whole(self, field: Field) -> bytes:
        return self._content[field.begin : field.stop]


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))
