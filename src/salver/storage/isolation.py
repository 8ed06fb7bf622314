"""Which versions crashed or hung a server process once, and so compute in their own processes.

The supervisor, the server process and the controller all change `isolated.json`, one at a time
under `isolated.lock`, which nothing else waits for; the file is replaced whole, so readers need no lock.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from salver.storage.home import Home
from salver.storage.snapshot import FollowedFile, full_disk_is_reported, read_json, write_json

__all__ = ["Cause", "FollowedIsolation", "Isolation", "end_isolation", "isolate", "read_isolated"]

_LOCK: Final = "isolated.lock"


class Cause(enum.StrEnum):
    """What a version did to the server process."""

    CRASHED = "crashed"
    HUNG = "hung"


class Isolation(msgspec.Struct, frozen=True):
    """Why a version is isolated, and since when (wall time)."""

    cause: Cause
    at_s: float


def read_isolated(home: Home) -> dict[str, Isolation]:
    """What is isolated, by digest; raises CORRUPT_ARTIFACT for a damaged file."""
    return read_json(home.isolated_path, dict[str, Isolation]) or {}


def isolate(home: Home, digests: Iterable[str], cause: Cause, at_s: float) -> None:
    """Add digests, durably; those that are isolated already keep their cause.

    Waits for others who do the same and for the disk, so call it off the event loop.
    """
    with _alone(home):
        known = read_isolated(home)
        added = {digest: Isolation(cause, at_s) for digest in digests if digest not in known}
        if added:
            write_json(home.isolated_path, known | added)


def end_isolation(home: Home, digest: str) -> None:
    """Forget a digest, durably; nothing happens where it is not isolated. Waits as `isolate` does."""
    with _alone(home):
        known = read_isolated(home)
        if known.pop(digest, None) is not None:
            write_json(home.isolated_path, known)


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    with full_disk_is_reported():
        descriptor = os.open(home.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class FollowedIsolation:
    """The isolated versions of a home, for one who follows them: a look costs one stat(2)."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file = FollowedFile(home.isolated_path)

    def news(self) -> set[str] | None:
        """The digests if the file is another than at the last call, as it is at the first; None otherwise.

        Raises CORRUPT_ARTIFACT for a damaged file, once until it is replaced.
        """
        return set(read_isolated(self._home)) if self._file.changed() else None
