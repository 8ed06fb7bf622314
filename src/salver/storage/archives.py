"""The one place where archives are unpacked: zip, tar and tar.gz, written by whoever.

What an archive says of itself is not believed: names, counts, sizes and ratios are checked while its
bytes stream by, every file is made anew inside a fresh directory, and nothing is left of it after a
refusal. Files and directories come out and nothing else: no links, no devices, no permissions.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from salver.protocol.errors import SalverError
from salver.protocol.formats import MAX_FILES
from salver.storage.snapshot import full_disk_is_reported

__all__ = ["ArchiveLimits", "extract"]

_CHUNK_BYTES: Final = 1 << 20
_LARGEST_READ_BYTES: Final = 1 << 24
"""What is read at once, by these modules or by the libraries below: more is a header that claims too much."""
_LONGEST_PATH_BYTES: Final = 1024
_LONGEST_PART_BYTES: Final = 255
_DEEPEST: Final = 32
_ODD: Final = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]|^[A-Za-z]:")
_LOCAL_HEADER_BYTES: Final = 30
_ENCRYPTED: Final = 0x1
_IS_UTF8: Final = 0x800
_BROKEN: Final = (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, ValueError)
"""What the libraries raise for an archive that is none; UnicodeDecodeError is a ValueError."""


class ArchiveLimits(NamedTuple):
    """What an archive may hold."""

    members: int = MAX_FILES
    total_bytes: int = 64 * 2**30
    ratio: float = 100.0
    """Bytes that come out for each byte that went in; deflate can make 1032 of one, weights hardly make 10."""
    ratio_from_bytes: int = 64 * 2**20
    """What is smaller than this may be as dense as it likes."""


class _Member(NamedTuple):
    name: str
    is_directory: bool
    size_bytes: int


def extract(archive: Path, into: Path, limits: ArchiveLimits | None = None) -> list[str]:
    """Unpack `archive` into the fresh directory `into`; return the paths of its files in their order.

    REQUIRES that `into` is not there. Raises INVALID_ARTIFACT naming the member that is wrong, STORAGE_FULL
    when the disk is; after any failure `into` is gone.
    """
    limits = limits or ArchiveLimits()
    into.mkdir(mode=0o700)
    try:
        with full_disk_is_reported():
            return _extract(archive, into, limits)
    except _BROKEN as error:
        shutil.rmtree(into, ignore_errors=True)
        why = "a name is in no known encoding" if isinstance(error, UnicodeError) else str(error)[:200]
        raise _refused(f"it cannot be read: {why or type(error).__name__}") from None
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _extract(archive: Path, into: Path, limits: ArchiveLimits) -> list[str]:
    names, written = _Names(limits.members), _Written(archive.stat().st_size, limits)
    files = []
    with archive.open("rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        members = _zip_members(raw, written) if head.startswith(b"PK") else _tar_members(raw, head, written)
        for member, content in members:
            path = names.take(member)
            target = into / path
            if member.is_directory:
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(target, content, member, written)
            files.append(path)
    if not files:
        raise _refused("it holds no files")
    return files


def _write(target: Path, content: IO[bytes] | None, member: _Member, written: _Written) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    size_bytes = 0
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        while content is not None and (chunk := content.read(_CHUNK_BYTES)):
            size_bytes += len(chunk)
            written.add(len(chunk))
            file.write(chunk)
    if size_bytes != member.size_bytes:
        raise _refused(f"{member.name[:200]!r} says that it has {member.size_bytes} bytes, and has {size_bytes}")


class _Written:
    """How much has come out of an archive; raises when it is too much."""

    def __init__(self, archive_bytes: int, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._most_bytes = min(
            limits.total_bytes, max(limits.ratio_from_bytes, int(max(archive_bytes, 1) * limits.ratio))
        )
        self._bytes = 0

    def add(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        self.require_room(0)

    def require_room(self, size_bytes: int) -> None:
        """Raise INVALID_ARTIFACT unless so many more bytes may come."""
        if self._bytes + size_bytes <= self._most_bytes:
            return
        limits = self._limits
        if self._most_bytes == limits.total_bytes:
            raise _refused(f"it holds more than {limits.total_bytes} bytes")
        raise _refused(
            f"it holds more than {limits.ratio:g} times the bytes it has itself, as archives made to harm do"
        )


class _Names:
    """The paths of an archive, each allowed and taken once, also where capitals and accents do not count."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}

    def take(self, member: _Member) -> str:
        """The member's path; raises INVALID_ARTIFACT for one that may not be."""
        self._count += 1
        if self._count > self._most:
            raise _refused(f"it has more than {self._most} members")
        path = member.name.removesuffix("/") if member.is_directory else member.name
        _check_path(path)
        parts = path.split("/")
        depth = len(parts) if member.is_directory else len(parts) - 1
        for end in range(1, depth + 1):
            folder = "/".join(parts[:end])
            if _folded(folder) in self._files or self._folders.setdefault(_folded(folder), folder) != folder:
                raise _refused(f"{path[:200]!r} meets another of that name, of other capitals or of another kind")
        if not member.is_directory:
            if _folded(path) in self._files or _folded(path) in self._folders:
                raise _refused(f"{path[:200]!r} comes twice, perhaps in other capitals or of another kind")
            self._files.add(_folded(path))
        return path


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _check_path(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/"):
        raise _refused(f"the path {path[:200]!r} is absolute")
    if _ODD.search(path):
        raise _refused(f"the path {path[:200]!r} has a backslash, a drive, a control character or no valid Unicode")
    if any(part in ("", ".", "..") for part in parts):
        raise _refused(f"the path {path[:200]!r} has a part that is empty, '.' or '..'")
    too_long = len(path.encode()) > _LONGEST_PATH_BYTES or any(len(p.encode()) > _LONGEST_PART_BYTES for p in parts)
    if too_long or len(parts) > _DEEPEST:
        raise _refused(f"the path {path[:80]!r}... is too long or too deep")


def _zip_members(raw: IO[bytes], written: _Written) -> Iterator[tuple[_Member, IO[bytes] | None]]:
    with zipfile.ZipFile(cast("IO[bytes]", _Careful(raw))) as opened:
        infos = opened.infolist()
        _require_apart(infos)
        for info in infos:
            name = info.orig_filename
            _check_zip_entry(info, name)
            written.require_room(info.file_size)
            member = _Member(name, name.endswith("/"), info.file_size)
            if member.is_directory:
                yield member, None
                continue
            with opened.open(info) as content:
                yield member, content


def _check_zip_entry(info: zipfile.ZipInfo, name: str) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise _refused(f"{name[:200]!r} is neither a file nor a directory")
    if info.flag_bits & _ENCRYPTED:
        raise _refused(f"{name[:200]!r} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refused(f"{name[:200]!r} is compressed in another way than deflate")
    if not name.isascii() and not info.flag_bits & _IS_UTF8:
        raise _refused(f"the path {name[:200]!r} is not said to be UTF-8")


def _require_apart(infos: list[zipfile.ZipInfo]) -> None:
    """No two members may share bytes: so a small archive claims to hold the same large one a thousand times."""
    end = 0
    for info in sorted(infos, key=lambda each: each.header_offset):
        if info.header_offset < end:
            raise _refused(f"{info.orig_filename[:200]!r} overlaps another member")
        end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size


def _tar_members(raw: IO[bytes], head: bytes, written: _Written) -> Iterator[tuple[_Member, IO[bytes] | None]]:
    with contextlib.ExitStack() as stack:
        is_compressed = head.startswith(b"\x1f\x8b")
        plain = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw))) if is_compressed else raw
        careful = cast("IO[bytes]", _Careful(plain))
        opened = stack.enter_context(tarfile.TarFile(fileobj=careful, encoding="utf-8", errors="strict"))
        for info in opened:
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise _refused(f"{info.name[:200]!r} is neither a plain file nor a directory")
            written.require_room(info.size)
            content = opened.extractfile(info) if info.isreg() else None
            yield _Member(info.name, info.isdir(), info.size), content
        # The library takes a damaged header behind the first member for the end; gzip's checksum comes last.
        careful.seek(opened.offset)
        if careful.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise _refused("a header in it is damaged")
        if len(careful.read(_CHUNK_BYTES)) == _CHUNK_BYTES:
            raise _refused("there is more behind its end")


class _Careful:
    """A file that is read in pieces: a header that claims a gigabyte for a name is not believed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST_READ_BYTES:
            raise _refused(f"a header in it claims {size} bytes")
        found = self._file.read(_LARGEST_READ_BYTES + 1 if size < 0 else size)
        if len(found) > _LARGEST_READ_BYTES:
            raise _refused("a header in it is too large")
        return found

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _refused(what: str) -> SalverError:
    return SalverError("INVALID_ARTIFACT", f"the archive is refused: {what}", "make it anew, of plain files only")
