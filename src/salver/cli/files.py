"""Files that a command is given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from salver.protocol.errors import SalverError

__all__ = ["GivenFile", "read_file", "read_given"]


class GivenFile(NamedTuple):
    """What was given, and what to call it in an error."""

    content: bytes
    called: str


def read_file(path: Path) -> bytes:
    """Its bytes; INVALID_PARAMETER where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SalverError(
            "INVALID_PARAMETER", f"cannot read {str(path)!r}: {error.strerror}", "check the path"
        ) from None


def read_given(input: str) -> GivenFile:
    """A file, or standard input for "-"; INVALID_PARAMETER where it cannot be read."""
    if input == "-":
        return GivenFile(sys.stdin.buffer.read(), "standard input")
    return GivenFile(read_file(Path(input)), repr(input))
