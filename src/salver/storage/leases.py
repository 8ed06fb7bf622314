"""Who needs which files of a cache at the moment: so nobody removes them.

A lease is a file that lists digests, locked by whoever holds it; death gives it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from salver.storage.blob_files import READ, locked
from salver.storage.snapshot import full_disk_is_reported, write_all

__all__ = ["Leases"]


class Leases:
    """The leases in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = directory / "lock"

    @contextlib.contextmanager
    def taken(self, sha256s: Iterable[str]) -> Iterator[None]:
        """Have these digests leased until the block ends."""
        with full_disk_is_reported(), locked(self._lock, shared=True):
            descriptor, name = tempfile.mkstemp(prefix="lease-", dir=self._directory)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            write_all(descriptor, "\n".join(sha256s).encode())
        try:
            yield
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(descriptor)

    @contextlib.contextmanager
    def settled(self) -> Iterator[frozenset[str]]:
        """What is leased; nobody takes a lease until the block ends. What the dead had is removed."""
        with locked(self._lock):
            leased: set[str] = set()
            for path in self._directory.glob("lease-*"):
                leased |= _leased(path)
            yield frozenset(leased)

    @contextlib.contextmanager
    def one_at_a_time(self, sha256: str) -> Iterator[None]:
        """Hold back others who want to fetch this blob, and a few more, until the block ends."""
        with locked(self._directory / f"fetching-{sha256[:2]}"):
            yield


def _leased(path: Path) -> set[str]:
    try:
        descriptor = os.open(path, READ)
    except FileNotFoundError:
        return set()
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return set(file.read().decode().split())
        path.unlink(missing_ok=True)
    return set()
