"""Where a model repository is: a directory, or a prefix of a bucket. Listed whole, and copied file by file."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from salver.protocol.errors import SalverError
from salver.storage.blob_files import open_regular, pieces_of
from salver.storage.remote_blobs import Bucket
from salver.storage.snapshot import full_disk_is_reported

__all__ = ["BucketSource", "DirectorySource", "Source", "SourceFile"]

_MOST_FILES: Final = 200_000
"""Files of one repository: more is a wrong directory."""
_TICK_MS: Final = 200


class SourceFile(NamedTuple):
    """A file in a repository, as it was when it was listed."""

    path: str
    """Relative to the repository, with forward slashes."""
    size_bytes: int
    changed_s: float
    """When it was last written, renamed or otherwise touched, by the clock of whoever keeps it."""
    stamp: str
    """Another one when it is another file, or has other bytes."""
    problem: str = ""
    """Why it cannot be taken, where it cannot."""


class Source(Protocol):
    """A repository. Raises STORE_UNAVAILABLE or NOT_FOUND where it is not to be had."""

    @property
    def uri(self) -> str:
        """Where it is, in full."""

    @property
    def name(self) -> str:
        """What it is called: the last part of that."""

    def files(self) -> list[SourceFile]:
        """Every file, hidden ones left out."""

    def copy(self, file: SourceFile, target: Path) -> None:
        """Copy a file to the new file `target`; it may have changed since it was listed."""

    def wait(self, longest_s: float, stop: threading.Event) -> None:
        """Return when something may have changed, after `longest_s`, or when `stop` is set."""


class DirectorySource:
    """A directory. Links in it are named as problems and not followed."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def uri(self) -> str:
        """See `Source`."""
        return str(self._root)

    @property
    def name(self) -> str:
        """See `Source`."""
        return self._root.name

    def files(self) -> list[SourceFile]:
        """See `Source`. A directory counts as changed when something was put into it or taken out of it."""
        if not self._root.is_dir():
            raise SalverError("NOT_FOUND", f"there is no directory {self.name!r}", "check the path")
        return list(self._walk())

    def _walk(self) -> Iterator[SourceFile]:
        count = 0
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            with contextlib.suppress(FileNotFoundError):
                changed_s = Path(folder).lstat().st_ctime
                links = [each for each in folders if Path(folder, each).is_symlink()]
                for name in (*links, *sorted(each for each in names if not each.startswith("."))):
                    count += 1
                    _check_count(count, self.name)
                    with contextlib.suppress(FileNotFoundError):
                        yield self._file(Path(folder, name), changed_s)

    def _file(self, path: Path, folder_changed_s: float) -> SourceFile:
        found = path.lstat()
        # Not the time of its last writing: copies keep that of the original.
        return SourceFile(
            path.relative_to(self._root).as_posix(),
            found.st_size,
            max(found.st_ctime, folder_changed_s),
            f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}",
            "" if stat.S_ISREG(found.st_mode) else "is no regular file",
        )

    def copy(self, file: SourceFile, target: Path) -> None:
        """See `Source`."""
        source = open_regular(self._root / file.path)
        try:
            with full_disk_is_reported(), target.open("xb") as into:
                for piece in pieces_of(source):
                    into.write(piece)
        finally:
            os.close(source)

    def wait(self, longest_s: float, stop: threading.Event) -> None:
        """See `Source`."""
        from watchfiles import watch  # noqa: PLC0415 - for those who wait

        ticks = max(1, int(longest_s * 1000 / _TICK_MS))
        try:
            for changes in watch(
                self._root,
                stop_event=stop,
                raise_interrupt=True,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                debounce=_TICK_MS,
            ):
                ticks -= 1
                if changes or ticks <= 0:
                    return
        except OSError:  # the directory is gone, or has more below it than the kernel watches
            stop.wait(longest_s)


class BucketSource:
    """What is below a prefix of a bucket; looked at from time to time, as nobody tells what changes there."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @property
    def uri(self) -> str:
        """See `Source`."""
        return self._bucket.url

    @property
    def name(self) -> str:
        """See `Source`."""
        return self.uri.rpartition("/")[2]

    def files(self) -> list[SourceFile]:
        """See `Source`."""
        found: list[SourceFile] = []
        for listed in self._bucket.list():
            if listed.name.endswith("/") or any(part.startswith(".") for part in listed.name.split("/")):
                continue
            _check_count(len(found), self.name)
            stamp = f"{listed.version}-{listed.size_bytes}"
            found.append(SourceFile(listed.name, listed.size_bytes, listed.modified_s, stamp))
        return found

    def copy(self, file: SourceFile, target: Path) -> None:
        """See `Source`."""
        listed = self._bucket.head(file.path)
        if listed is None:
            raise SalverError("NOT_FOUND", f"{file.path!r} is gone from {self.name!r}")
        with full_disk_is_reported(), target.open("xb") as into:
            for piece in self._bucket.pieces(listed):
                into.write(piece)

    def wait(self, longest_s: float, stop: threading.Event) -> None:
        """See `Source`."""
        stop.wait(longest_s)


def _check_count(count: int, name: str) -> None:
    if count > _MOST_FILES:
        raise SalverError(
            "INVALID_ARTIFACT", f"{name!r} has more than {_MOST_FILES} files", "name the directory of a repository"
        )
