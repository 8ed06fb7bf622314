"""Files of a store on their way in: written beside, locked while they are, put into place whole.

A writer holds a lock on its file, and death gives it back: so what killed writers left is told from
what is being written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.storage.snapshot import full_disk_is_reported, sync_directory

__all__ = ["READ", "Incoming", "IncomingFile", "locked", "new_file", "open_regular", "pieces_of"]

READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_PIECE_BYTES: Final = 1 << 20


class IncomingFile:
    """A file that is being written; nobody sees it before `install`."""

    __slots__ = ("_path", "_root", "descriptor")

    def __init__(self, descriptor: int, path: Path, root: Path) -> None:
        self.descriptor = descriptor
        self._path = path
        self._root = root

    def install(self, name: str) -> None:
        """Make it the file of that name, read-only, replacing any; durable on return."""
        os.fchmod(self.descriptor, 0o444)
        os.fsync(self.descriptor)
        self._path.replace(self._root / name)
        sync_directory(self._root)


class Incoming:
    """The files that are being written for the directory `root`."""

    __slots__ = ("_directory", "_root")

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = root / "incoming"

    @contextlib.contextmanager
    def new(self) -> Iterator[IncomingFile]:
        """A new file, locked until the block ends; gone then unless it was installed. Raises STORAGE_FULL."""
        with full_disk_is_reported():
            descriptor, path = self._make()
            try:
                yield IncomingFile(descriptor, path, self._root)
            finally:
                try:
                    path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)  # and with it the lock: only now may others take it for a remnant

    def _make(self) -> tuple[int, Path]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor, name = tempfile.mkstemp(dir=self._directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.fstat(descriptor).st_nlink:
                    return descriptor, Path(name)
            except BaseException:
                os.close(descriptor)
                Path(name).unlink(missing_ok=True)
                raise
            os.close(descriptor)  # it was taken for a remnant between its making and its locking

    def discard_unfinished(self) -> int:
        """Remove what killed writers left and return how many files."""
        try:
            found = list(self._directory.iterdir())
        except FileNotFoundError:
            return 0
        return sum(map(_remove_unless_held, found))

    def usage_bytes(self) -> int:
        """The sizes of all of them."""
        total = 0
        with contextlib.suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    total += path.lstat().st_size
        return total


def _remove_unless_held(path: Path) -> bool:
    """Remove an incoming file that nobody writes any more; whether it was one."""
    try:
        descriptor = os.open(path, READ)
    except FileNotFoundError:
        return False  # complete by now, or removed by somebody else
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock file at `path`, made if need be, until the block ends. For moments: others wait."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> int:
    """Open `path` without following a link and without waiting for the other end of a pipe."""
    try:
        descriptor = os.open(path, READ | os.O_NONBLOCK)
    except OSError as error:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"file {path.name!r} cannot be opened: {os.strerror(error.errno or 0)}",
            "give a readable regular file; symbolic links are not followed",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SalverError(
            "INVALID_ARTIFACT", f"{path.name!r} is not a regular file", "directories, devices and pipes are not stored"
        )
    return descriptor


@contextlib.contextmanager
def new_file(path: Path, mode: int) -> Iterator[int]:
    """A new file that vanishes again when the block raises."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with full_disk_is_reported():
        descriptor = os.open(path, flags, mode)
        try:
            try:
                yield descriptor
            finally:
                os.close(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def pieces_of(descriptor: int) -> Iterator[bytes]:
    """The rest of an open file."""
    while piece := os.read(descriptor, _PIECE_BYTES):
        yield piece
