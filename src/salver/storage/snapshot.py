"""Small files replaced whole: a reader sees the old content or the new, never a mixture.

The order is the one that survives power loss: write a temporary file in the same directory,
fsync it, rename it over the target, fsync the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from salver.protocol.errors import SalverError
from salver.storage.owners import lives, this_process

__all__ = [
    "TEMPORARY_SUFFIX",
    "FollowedFile",
    "create_once",
    "discard_temporaries",
    "full_disk_is_reported",
    "read_json",
    "sync_directory",
    "write_all",
    "write_atomically",
    "write_json",
]

T = TypeVar("T")

TEMPORARY_SUFFIX: Final = ".tmp"
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def full_disk_is_reported() -> Iterator[None]:
    """Turn "no space left" (disk, quota or file size limit) into STORAGE_FULL."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise SalverError(
            "STORAGE_FULL",
            f"no space is left for the data directory ({os.strerror(error.errno)})",
            "free some space or move the home to a larger disk, then repeat",
        ) from error


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte of `data`: one `os.write` may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(path: Path) -> None:
    """Make renames and new names in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`, durable on return.

    Raises STORAGE_FULL without having touched `path`; no temporary file is left behind by
    anything but the death of the process.
    """
    with full_disk_is_reported(), _temporary(path, data, mode) as temporary:
        temporary.replace(path)
        sync_directory(path.parent)


def create_once(path: Path, data: bytes, mode: int = 0o600) -> bool:
    """Create `path` with `data` unless it exists; return whether this call created it.

    Of two racing processes one creates the file and the other sees it complete.
    """
    with full_disk_is_reported(), _temporary(path, data, mode) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        sync_directory(path.parent)
        return True


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    prefix = f".{path.name}.{this_process()}."
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=TEMPORARY_SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        try:
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def discard_temporaries(directory: Path) -> int:
    """Remove what processes that were killed while they wrote files in `directory` left; how many files it was."""
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for path in directory.glob(f".*{TEMPORARY_SUFFIX}"):
            # .NAME.PID.START.RANDOM.tmp, made by `_temporary`
            parts = path.name.removesuffix(TEMPORARY_SUFFIX).rsplit(".", 3)
            if len(parts) == 4 and parts[1].isdecimal() and parts[2].isdecimal() and not lives(".".join(parts[1:3])):
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def write_json(path: Path, value: object, mode: int = 0o600) -> None:
    """Write `value` as JSON, atomically."""
    write_atomically(path, msgspec.json.encode(value), mode)


def read_json(path: Path, type: type[T]) -> T | None:
    """Read a JSON file as `type`; None when there is no such file.

    Raises CORRUPT_ARTIFACT, naming the file without its directory, when the content is not
    what `type` says.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.DecodeError as error:
        raise SalverError(
            "CORRUPT_ARTIFACT",
            f"{path.name} in the data directory is damaged: {error}",
            "restore it from a backup; if Salver writes it by itself, remove it",
        ) from error


class FollowedFile:
    """A file replaced whole by others, for one who follows it: a look costs one stat(2)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = (0, 0)

    def changed(self) -> bool:
        """Whether there is another file than at the last call, or none any more; true the first time."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ino)
        except FileNotFoundError:
            seen = None
        if seen == self._seen:
            return False
        self._seen = seen
        return True
