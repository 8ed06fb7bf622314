"""Files that a command is given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NamedTuple

from salver.protocol.errors import SalverError

__all__ = ["GivenFile", "read_file", "read_given"]

_MOST_BYTES: Final = 1 << 30


class GivenFile(NamedTuple):
    """What was given, and what to call it in an error."""

    content: bytes
    called: str


def read_file(path: Path) -> bytes:
    """Its bytes; INVALID_PARAMETER where it cannot be read, BODY_TOO_LARGE above 1 GiB."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SalverError("BODY_TOO_LARGE", f"{str(path)!r} has more than {_MOST_BYTES} bytes", "name another")
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
