r"""The file of a backup: a tar, compressed if its name says so, encrypted if there is a passphrase.

Its last member is `manifest.json`, with the size and SHA-256 of all others; an archive that ends
before it is none. Encrypted: `salver backup 1\n`, a salt of 16 bytes, and the tar in the format of
`salver.storage.blob_cipher` under a key that scrypt (RFC 7914) makes of the passphrase.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import tarfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["MANIFEST", "ArchiveWriter", "BackupManifest", "Member", "check_name", "open_archive", "write_archive"]

MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(
    r"(?:salver\.db|jobs\.db|tables\.json|isolated\.json|admin\.token|audit/heads\.jsonl"
    r"|blobs/[0-9a-f]{64}|audit/[0-9a-f]{32}\.pub|(?:secrets|trust|usage)/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})"
)
_MAGIC: Final = b"salver backup 1\n"
_SALT_BYTES: Final = 16
_SCRYPT: Final[dict[str, int]] = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 1 << 26, "dklen": 32}
_CHUNK_BYTES: Final = 1 << 20
_MANIFEST_BYTES: Final = 1 << 30
_GZIP_LEVEL: Final = 1
"""Artifacts hardly shrink, so the time is better spent on the next one."""


class Member(msgspec.Struct, frozen=True):
    """One file of a backup."""

    name: str
    size_bytes: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True):
    """What is in a backup, and of when."""

    format: int
    salver: str
    made_s: float
    schema: str
    """The revision of the database's schema; see `salver.storage.migrations`."""
    secrets: bool
    """Whether the secrets of the home are in it. Without them no token works and a new key signs."""
    records: int
    """How many records the audit journal had."""
    last_hash: str
    """The hash of the last one."""
    versions: int
    members: tuple[Member, ...]


class ArchiveWriter:
    """Adds files to an archive, and counts and hashes what it adds."""

    def __init__(self, tar: tarfile.TarFile, made_s: float) -> None:
        self._tar = tar
        self._made_s = made_s
        self.members: list[Member] = []

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add a file with this content."""
        self._add(name, io.BytesIO(data), len(data))

    def add_file(self, name: str, path: Path) -> None:
        """Add the file at `path`, which must not change meanwhile."""
        with path.open("rb", buffering=0) as source:
            self._add(name, cast("BinaryIO", source), os.fstat(source.fileno()).st_size)

    def add_manifest(self, manifest: BackupManifest) -> None:
        """End the archive."""
        data = msgspec.json.encode(manifest)
        self._add(MANIFEST, io.BytesIO(data), len(data))

    def _add(self, name: str, source: BinaryIO, size_bytes: int) -> None:
        header = tarfile.TarInfo(name)
        header.size, header.mode, header.mtime = size_bytes, 0o600, int(self._made_s)
        hashing = _Hashing(source)
        self._tar.addfile(header, cast("BinaryIO", hashing))
        self.members.append(Member(name, size_bytes, hashing.digest.hexdigest()))


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


@contextlib.contextmanager
def write_archive(target: BinaryIO, name: str, made_s: float, passphrase: bytes | None) -> Iterator[ArchiveWriter]:
    """Write an archive to `target`; `name` says whether it is compressed. Raises OSError as writing does."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_encrypting(target, passphrase)) if passphrase else target
        if name.endswith((".gz", ".tgz")):
            # No name and no time in its header: they say nothing of what is in it.
            sink = cast("BinaryIO", stack.enter_context(gzip.GzipFile("", "wb", _GZIP_LEVEL, sink, mtime=0)))
        tar = stack.enter_context(tarfile.open(fileobj=sink, mode="w|", bufsize=_CHUNK_BYTES))
        yield ArchiveWriter(tar, made_s)


@contextlib.contextmanager
def _encrypting(target: BinaryIO, passphrase: bytes) -> Iterator[BinaryIO]:
    """A file whose content arrives in `target` encrypted, by a thread: the cipher pulls, the archive pushes."""
    from salver.storage.blob_cipher import encrypted, new_tag  # noqa: PLC0415 - cryptography takes a while

    salt = os.urandom(_SALT_BYTES)
    key = hashlib.scrypt(passphrase, salt=salt, **_SCRYPT)
    target.write(_MAGIC + salt)
    reading, writing = os.pipe()
    problems: list[BaseException] = []

    def encrypt() -> None:
        with os.fdopen(reading, "rb") as source:
            try:
                target.writelines(encrypted(source.read, key, new_tag()))
            except BaseException as problem:  # noqa: BLE001 - told to the writer, whose pipe breaks
                problems.append(problem)

    thread = threading.Thread(target=encrypt, name="encrypting the backup")
    thread.start()
    try:
        with os.fdopen(writing, "wb") as sink:
            yield sink
    except BrokenPipeError:
        if not problems:
            raise
    finally:
        thread.join()
    if problems:
        raise problems[0]


@contextlib.contextmanager
def open_archive(path: Path, passphrase: bytes | None) -> Iterator[Iterator[tuple[str, BinaryIO]]]:
    """The names of an archive's members, each with a file to read it from before the next.

    Raises INVALID_ARTIFACT for what is no backup, is cut off, was changed where that shows, or needs (another)
    passphrase: while it is read, too.
    """
    try:
        with path.open("rb") as source:
            plain = _decrypting(source, passphrase)
            beginning = plain.peek(2)[:2]
            unpacked = gzip.GzipFile(fileobj=plain) if beginning == b"\x1f\x8b" else plain
            with tarfile.open(fileobj=unpacked, mode="r|", bufsize=_CHUNK_BYTES) as tar:
                yield _members(tar)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _no_backup("it is damaged or cut off") from error
    except FileNotFoundError:
        if path.exists():
            raise
        raise SalverError(
            "NOT_FOUND", f"there is no file {path.name!r}", "name a file that `salver backup` made"
        ) from None


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, BinaryIO]]:
    for member in tar:
        file = tar.extractfile(member) if member.type == tarfile.REGTYPE else None
        if file is None or (member.name != MANIFEST and not check_name(member.name)):
            raise _no_backup(f"it has a member {member.name[:100]!r}, which no backup has")
        if member.name == MANIFEST and member.size > _MANIFEST_BYTES:
            raise _no_backup("its manifest is too large")
        yield member.name, cast("BinaryIO", file)


def check_name(name: str) -> bool:
    """Whether a backup has members of that name."""
    return _NAME.fullmatch(name) is not None


def _decrypting(source: BinaryIO, passphrase: bytes | None) -> io.BufferedReader:
    buffered = cast("io.BufferedReader", source)
    if not buffered.peek(len(_MAGIC)).startswith(_MAGIC):
        return buffered
    if passphrase is None:
        raise SalverError("INVALID_SETTING", "the backup is encrypted", "give its passphrase with --passphrase-file")
    source.read(len(_MAGIC))
    key = hashlib.scrypt(passphrase, salt=source.read(_SALT_BYTES), **_SCRYPT)
    return io.BufferedReader(_Decrypted(source, key), _CHUNK_BYTES)


class _Decrypted(io.RawIOBase):
    """What an encrypted file holds, as a file."""

    def __init__(self, source: BinaryIO, key: bytes) -> None:
        self._pieces = _decrypted(source, key)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


def _decrypted(source: BinaryIO, key: bytes) -> Iterator[bytes]:
    from salver.storage.blob_cipher import Decryptor  # noqa: PLC0415 - cryptography takes a while

    decryptor = Decryptor(key)
    try:
        while piece := source.read(_CHUNK_BYTES):
            yield from decryptor.update(piece)
        yield decryptor.finish()
    except ValueError as error:
        raise _no_backup(f"it cannot be decrypted: {error}") from None


def _no_backup(why: str) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT", f"the file is no whole backup: {why}", "use another backup; this one restores nothing"
    )
