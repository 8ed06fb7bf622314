"""What an error of SQLite means to a user."""

from __future__ import annotations

import sqlite3
from typing import Final

from salver.protocol.errors import SalverError

__all__ = ["BUSY_TIMEOUT_S", "sqlite_refusal"]

BUSY_TIMEOUT_S: Final = 10.0
"""How long a writer waits for another one."""


def sqlite_refusal(
    error: BaseException | None, what: str = "the database", waited_s: float = BUSY_TIMEOUT_S
) -> SalverError | None:
    """What a driver error about `what` means to a user; None for faults of our own."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return SalverError(
            "STORAGE_FULL",
            f"{what} cannot be written: no space is left or the disk fails",
            "free some space or move the home to a larger disk, then repeat",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return SalverError(
            "CONTROL_UNAVAILABLE",
            f"another writer has held {what} for {waited_s:g} s",
            "nothing has changed: repeat, and look for a stopped process that uses this home",
            retry_after_s=1.0,
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return SalverError("CORRUPT_ARTIFACT", f"{what} is damaged", "restore the home from a backup")
    return None
