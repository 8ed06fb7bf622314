"""Which other files an ONNX file wants to have read, and that they are its own.

ONNX lets tensors lie in files beside the model, at a path that the model names. Whoever may hand in a
model would so have this server read any file of its machine, unless every path is looked at before. Newer
versions of ONNX Runtime look as well; not all that may be installed do, and a model in memory is by none of
them kept from the directory that the server happens to stand in.

The numbers are those of onnx.proto3 (ONNX 1.23). Contents of tensors are stepped over, not read.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from salver.protocol.errors import SalverError
from salver.runtime.formats import Source

__all__ = ["Bytes", "Field", "external_paths", "fields_of", "has_graph", "require_own_data"]

Bytes = bytes | mmap.mmap


class Field(NamedTuple):
    """A field of a message: from `begin`, where its tag stands, to `stop`; its content from `start`."""

    number: int
    begin: int
    start: int
    stop: int
    has_content: bool
    """Whether it is bytes, text or a message; else it is a number."""


_TENSOR: Final = "tensor"
_ENTRY: Final = "entry"
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}
"""Messages by the field that holds them, as far as they lead to a tensor's entries of external data."""
_GRAPH: Final = 7
_OPSETS: Final = 8
_KEY: Final = 1
_VALUE: Final = 2
_BYTES: Final = 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
_LONGEST_VARINT: Final = 10
_LARGEST_TAG: Final = 1 << 32
"""Beyond it some parsers cut the number, and so see another field."""
_DEEPEST: Final = 200
_LONGEST_PATH: Final = 1024


def require_own_data(source: Source) -> None:
    """Raise INVALID_ARTIFACT unless all data that the model names is a plain file of its own artifact.

    A model alone has no such file, whatever lies beside it.
    """
    try:
        paths = _paths_of(source)
    except SalverError as error:
        raise SalverError(error.code, f"ONNX Runtime cannot load {source.main.name!r}: {error.message}") from None
    for path in sorted(paths):
        problem = _problem(source, path)
        if problem:
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{source.main.name!r} wants data from {path[:200]!r}, {problem}",
                "register the directory that holds the model and the files it names, below it and without links",
            )


def external_paths(content: Bytes) -> set[str]:
    """The files in which a serialised model says that tensors lie; INVALID_ARTIFACT for what is no protobuf."""
    found: set[str] = set()
    # Depth first with a stack: a graph within a graph within a graph is no reason to run out of one.
    waiting = [("model", 0, len(content), 0)]
    while waiting:
        kind, begin, end, depth = waiting.pop()
        if depth > _DEEPEST:
            raise SalverError("INVALID_ARTIFACT", f"the graphs of the model are more than {_DEEPEST} deep")
        for field, start, stop in _contents(content, begin, end):
            inner = _INSIDE[kind].get(field)
            if inner == _ENTRY:
                found.update(_location(content, start, stop))
            elif inner is not None:
                waiting.append((inner, start, stop, depth + 1))
    return found


def has_graph(content: Bytes) -> bool:
    """Whether serialised bytes may be a model: a message that says by which rules it was made, and has a graph."""
    try:
        fields = {field for field, _, _ in _contents(content, 0, len(content))}
    except SalverError:
        return False
    return {_GRAPH, _OPSETS} <= fields


def _paths_of(source: Source) -> set[str]:
    if source.content is not None:
        return external_paths(source.content)
    if not source.main.stat().st_size:
        return set()
    with source.main.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return external_paths(content)


def _problem(source: Source, path: str) -> str:
    parts = PurePosixPath(path).parts
    if source.alone:
        return "and is registered alone"
    if not path or len(path) > _LONGEST_PATH or path.startswith("/") or "\\" in path or "\0" in path:
        return "which is no path inside the artifact"
    if ".." in parts:
        return "which leads out of the artifact"
    # ONNX Runtime takes the path from where the model lies.
    at: Path = source.main.parent
    for part in parts:
        at /= part
        try:
            mode = at.lstat().st_mode
        except OSError:
            return "which is not in the artifact"
        if stat.S_ISLNK(mode):
            return "which is a link"
    return "" if stat.S_ISREG(mode) else "which is no file"


def _location(content: Bytes, begin: int, end: int) -> Iterator[str]:
    entry = {field: content[start:stop] for field, start, stop in _contents(content, begin, end)}
    if entry.get(_KEY) == b"location":
        yield entry.get(_VALUE, b"").decode(errors="replace")


def _contents(content: Bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields with contents of a message: the number, and from where to where."""
    return ((field.number, field.start, field.stop) for field in fields_of(content, at, end) if field.has_content)


def fields_of(content: Bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message that stands from `at` to `end`.

    Raises INVALID_ARTIFACT for what is no message, and for what parsers read differently: nothing that is
    not understood here may be understood by ONNX Runtime.
    """
    while at < end:
        begin = at
        tag, at = _varint(content, at, end)
        kind, start = tag & 7, at
        if tag >= _LARGEST_TAG:
            raise _unreadable()
        if kind == _BYTES:
            size, start = _varint(content, at, end)
            at = start + size
            if at > end:
                raise _unreadable()
        elif kind == 0:
            _, at = _varint(content, at, end)
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            raise _unreadable()
        yield Field(tag >> 3, begin, start, at, kind == _BYTES)


def _varint(content: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number in base 128, and where it ends."""
    number = 0
    for digit in range(_LONGEST_VARINT):
        if at + digit >= end:
            break
        byte = content[at + digit]
        number |= (byte & 0x7F) << (7 * digit)
        if byte < 0x80:
            return number, at + digit + 1
    raise _unreadable()


def _unreadable() -> SalverError:
    return SalverError("INVALID_ARTIFACT", "it is no ONNX model: its bytes are no message of protobuf")
