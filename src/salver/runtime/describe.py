"""`python -m salver.runtime.describe PATH FORMAT`: print an artifact's signature as JSON.

The child process in which code that came with an artifact runs to tell its signature. On a
refusal it prints `{"code", "message", "remedy"}` and exits with 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from salver.protocol.errors import SalverError
from salver.runtime.artifact import source_of
from salver.runtime.declaration import Declaration, read_declaration
from salver.runtime.formats import format_named

__all__ = ["main"]


def main() -> int:
    """Describe the artifact named on the command line."""
    path, name = Path(sys.argv[1]), sys.argv[2]
    # Whatever the artifact's code prints must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        chosen = format_named(name)
        declaration = read_declaration(path) if path.is_dir() else Declaration()
        reply = msgspec.json.encode(chosen.signature(source_of(path, chosen, declaration), declaration))
        status = 0
    except SalverError as error:
        reply = msgspec.json.encode({"code": error.code, "message": error.message, "remedy": error.remedy})
        status = 1
    os.write(answer, reply)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
