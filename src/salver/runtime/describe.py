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
from salver.runtime.batch import problem_of
from salver.runtime.declaration import Declaration, read_declaration
from salver.runtime.environment import allow_users_code
from salver.runtime.formats import format_named
from salver.runtime.formats.python import import_attribute

__all__ = ["main"]


def main() -> int:
    """Describe the artifact named on the command line."""
    path, name = Path(sys.argv[1]), sys.argv[2]
    # Whatever the artifact's code prints must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    allow_users_code()
    try:
        chosen = format_named(name)
        declaration = read_declaration(path) if path.is_dir() else Declaration()
        source = source_of(path, chosen, declaration)
        reply = msgspec.json.encode(chosen.signature(source, declaration))
        for reference in filter(None, (declaration.preprocess, declaration.postprocess)):
            _require_function(source.directory, reference)
        status = 0
    except SalverError as error:
        reply = msgspec.json.encode({"code": error.code, "message": error.message, "remedy": error.remedy})
        status = 1
    except Exception as error:  # noqa: BLE001 - the artifact's code may raise anything
        message = f"loading {path.resolve().name!r} in a child process failed: {problem_of(error)}"
        reply = msgspec.json.encode({"code": "INVALID_ARTIFACT", "message": message, "remedy": ""})
        status = 1
    os.write(answer, reply)
    return status


def _require_function(directory: Path, reference: str) -> None:
    """What would be missed when the version is loaded, said when it is registered."""
    if not callable(import_attribute(directory, reference)):
        raise SalverError("INVALID_ARTIFACT", f"{reference!r} of the artifact is no function", "name a function")


if __name__ == "__main__":
    raise SystemExit(main())
