"""The content-addressed store: files named by the SHA-256 of their bytes.

    blobs/<64 hex digits>    complete, read-only, durable
    blobs/incoming/          files being written, each locked by its writer; never seen as blobs

A blob's name is a promise that nobody keeps but the reader: disks rot and people edit. So every
way of getting bytes for use computes the hash of the very bytes that it hands out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from salver.protocol.errors import SalverError
from salver.storage.snapshot import full_disk_is_reported, sync_directory, write_all

__all__ = ["Blob", "BlobStore"]

_CHUNK_BYTES: Final = 1 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Blob(msgspec.Struct, frozen=True):
    """What was stored: the digest that names it and its size."""

    sha256: str
    size_bytes: int


class BlobStore:
    """A directory of blobs. Any number of processes may read and put at once."""

    __slots__ = ("_incoming", "_root")

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"

    def __repr__(self) -> str:
        return f"<BlobStore {self._root}>"

    def put_file(self, path: Path) -> Blob:
        """Copy the file at `path` into the store and return its digest and size.

        Durable on return; the same bytes take space once. Reads one opened descriptor, so
        the digest is of the bytes stored even if the file is changed meanwhile. Raises
        INVALID_ARTIFACT for anything but a readable regular file (symbolic links included)
        and STORAGE_FULL, both leaving nothing behind.
        """
        source = _open_regular(path)
        try:
            with full_disk_is_reported():
                return self._put(source)
        finally:
            os.close(source)

    def _put(self, source: int) -> Blob:
        descriptor, temporary = self._new_incoming()
        try:
            blob = _copy(source, descriptor)
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
            # Replacing an equal blob heals one that has rotted, and costs nothing else.
            temporary.replace(self._path(blob.sha256))
            sync_directory(self._root)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)  # and with it the lock: only now may others take it for a remnant
        return blob

    def _new_incoming(self) -> tuple[int, Path]:
        """A new file to write to, locked for as long as its descriptor is open."""
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
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
        """Remove what killed writers left and return how many files; what is being written stays.

        A writer holds a lock on its file, and death gives it back.
        """
        try:
            found = list(self._incoming.iterdir())
        except FileNotFoundError:
            return 0
        return sum(map(_remove_unless_held, found))

    def size_bytes(self, sha256: str) -> int | None:
        """The size of the blob of that name, None where there is none; says nothing about its bytes."""
        try:
            found = self._path(sha256).lstat()
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, sha256: str) -> BinaryIO:
        """Open a blob for reading, NOT verified: the caller checks what it reads.

        Raises CORRUPT_ARTIFACT when there is no such blob.
        """
        try:
            return os.fdopen(os.open(self._path(sha256), _READ), "rb", buffering=0)
        except OSError as error:
            raise _corrupt(sha256, "is missing from the store or cannot be read") from error

    def read_verified(self, sha256: str) -> bytes:
        """The bytes of a blob, whose digest was computed on exactly these bytes.

        Raises CORRUPT_ARTIFACT when the blob is missing or its bytes have another digest.
        """
        with self.open(sha256) as source:
            data = source.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _corrupt(sha256, "holds other bytes than its name says")
        return data

    def copy_verified(self, sha256: str, destination: Path, mode: int = 0o600) -> int:
        """Copy a blob into the new file `destination` and return its size.

        The digest is computed on the bytes written; a copy that differs is removed again and
        CORRUPT_ARTIFACT raised, STORAGE_FULL likewise. Not fsynced: copies are scratch.
        Raises FileExistsError when `destination` exists.
        """
        with self.open(sha256) as source, _new_file(destination, mode) as target:
            copied = _copy(source.fileno(), target)
            if copied.sha256 != sha256:
                raise _corrupt(sha256, "holds other bytes than its name says")
        return copied.size_bytes

    def verify(self, sha256: str) -> None:
        """Read a blob to its end; raises CORRUPT_ARTIFACT unless it is there and sound."""
        digest = hashlib.sha256()
        with self.open(sha256) as source:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise _corrupt(sha256, "holds other bytes than its name says")

    def usage_bytes(self) -> int:
        """The sizes of all files in the store, unfinished ones included."""
        total = 0
        for directory in (self._root, self._incoming):
            with contextlib.suppress(FileNotFoundError):
                total += sum(_size(entry) for entry in directory.iterdir())
        return total

    def _path(self, sha256: str) -> Path:
        if _SHA256.fullmatch(sha256) is None:
            raise SalverError("INVALID_ARTIFACT", f"{sha256[:80]!r} is not a SHA-256 digest", "give 64 hex digits")
        return self._root / sha256


def _open_regular(path: Path) -> int:
    """Open `path` without following a link and without waiting for the other end of a pipe."""
    try:
        descriptor = os.open(path, _READ | os.O_NONBLOCK)
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


def _remove_unless_held(path: Path) -> bool:
    """Remove an incoming file that nobody writes any more; whether it was one."""
    try:
        descriptor = os.open(path, _READ)
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


def _copy(source: int, target: int) -> Blob:
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := os.read(source, _CHUNK_BYTES):
        digest.update(chunk)
        write_all(target, chunk)
        size_bytes += len(chunk)
    return Blob(digest.hexdigest(), size_bytes)


@contextlib.contextmanager
def _new_file(path: Path, mode: int) -> Iterator[int]:
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


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _corrupt(sha256: str, what: str) -> SalverError:
    return SalverError(
        "CORRUPT_ARTIFACT",
        f"blob {sha256} {what}",
        "register the same file again, or restore the blob from a backup",
    )
