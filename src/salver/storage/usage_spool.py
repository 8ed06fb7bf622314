"""Counts of use on their way from the processes that serve to the database: small files, each read once.

The processes that serve know nothing of a database and go on without a controller; what they have counted waits here.
A controller that dies between keeping a file's counts and removing the file will count them twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.protocol.usage import Asking
from salver.storage.snapshot import read_json, write_json

__all__ = ["UsageSpool"]

_MOST_FILES: Final = 10_000
"""Files that wait at most, a day of them; counts are dropped where nobody fetches these."""
_SUFFIX: Final = ".json"


class UsageSpool:
    """One directory of counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, askings: Sequence[Asking]) -> bool:
        """Leave counts for the controller; False where too many wait. Raises OSError and STORAGE_FULL."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        if sum(1 for _ in self._path.iterdir()) >= _MOST_FILES:
            return False
        write_json(self._path / f"{os.urandom(8).hex()}{_SUFFIX}", tuple(askings))
        return True

    def drain(self, keep: Callable[[Sequence[Asking]], None]) -> int:
        """Give each file's counts to `keep`, then remove it; returns how many files. REQUIRES to be the only reader."""
        try:
            found = sorted(path for path in self._path.iterdir() if path.suffix == _SUFFIX)
        except FileNotFoundError:
            return 0
        for path in found:
            try:
                askings = read_json(path, tuple[Asking, ...]) or ()
            except SalverError:
                askings = ()  # damaged: counts are no reason to stop
            keep(askings)
            path.unlink(missing_ok=True)
        return len(found)
