"""Where in an artifact's own code an exception came from, told without a path of this machine.

Whatever imports an artifact's code says from which directory; a process that runs users' code
holds one version, so there are few.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Final

__all__ = ["code_comes_from", "place_of"]

_LONGEST_PLACE: Final = 200
_directories: Final[set[str]] = set()


def code_comes_from(directory: Path) -> None:
    """Remember that the modules below `directory` belong to an artifact."""
    _directories.add(_absolute(str(directory)) + os.sep)


def place_of(error: BaseException) -> str:
    """The innermost line of an artifact's code that `error` passed, as "model.py:7 in predict"; else nothing.

    The file is named as inside the artifact. Never raises for an exception's sake, and is bounded.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = _absolute(frame.f_code.co_filename)
        for directory in _directories:
            if file.startswith(directory):
                return f"{file[len(directory) :]}:{line} in {frame.f_code.co_name}"[:_LONGEST_PLACE]
    return ""


def _absolute(path: str) -> str:
    # Links stay: imported files are called by the name under which the directory was given.
    return os.path.abspath(path)  # noqa: PTH100
