"""Reading blobs from the directory that keeps them: all that a worker does with one.

Whoever only reads needs data keys that can be unwrapped; `salver.storage.blobs` writes, and needs them wrapped too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from salver.storage.blob_cipher import TAG_BYTES, Decryptor, key_name, plain_size_bytes
from salver.storage.blob_files import READ, new_file, pieces_of
from salver.storage.blob_keys import LARGEST_KEPT_BYTES, DataKeys
from salver.storage.blob_store import Kind, check_digest, checked, corrupt, named_key, vouched
from salver.storage.snapshot import write_all

__all__ = ["BlobReader", "Stored", "closing"]


class Stored:
    """A blob as it is kept, open for reading from its beginning."""

    __slots__ = ("decryptor", "descriptor", "key_file", "name", "size_bytes")

    def __init__(self, name: str, descriptor: int, decryptor: Decryptor | None = None, key_file: str = "") -> None:
        self.name = name
        self.descriptor = descriptor
        self.decryptor = decryptor
        self.key_file = key_file
        """The name of the file with its data key, of an encrypted one."""
        self.size_bytes = os.fstat(descriptor).st_size
        """Of the file."""


class BlobReader:
    """A directory of blobs, to read from: `salver.storage.blob_store.ReadableBlobs` says what it does."""

    __slots__ = ("_keys", "root")

    def __init__(self, root: Path, keys: DataKeys) -> None:
        self.root = root
        self._keys = keys

    def size_bytes(self, sha256: str) -> int | None:
        """See `ReadableBlobs`."""
        for kind in (Kind.PLAIN, Kind.ENCRYPTED):
            with contextlib.suppress(FileNotFoundError):
                found = self._path(sha256, kind).lstat()
                if stat.S_ISREG(found.st_mode):
                    return found.st_size if kind is Kind.PLAIN else plain_size_bytes(found.st_size)
        return None

    def hold(self, sha256s: Iterable[str]) -> AbstractContextManager[None]:
        """See `ReadableBlobs`: nothing leaves a directory but what nobody refers to."""
        del sha256s
        return contextlib.nullcontext()

    def data_keys(self, sha256s: Iterable[str]) -> dict[str, bytes]:
        """See `ReadableBlobs`."""
        keys = {}
        for sha256 in set(sha256s):
            if not self._path(sha256).exists():
                name = self.key_in_use(sha256)
                if name is not None:
                    keys[sha256] = self._keys.unwrap(sha256, self.read_key(sha256, name))
        return keys

    def opened(self, sha256: str) -> AbstractContextManager[Stored]:
        """Open a blob as it is kept, NOT verified; raises CORRUPT_ARTIFACT when there is none."""
        try:
            stored = self._open_plain(sha256) or self._open_encrypted(sha256)
        except OSError as error:
            raise corrupt(sha256, "cannot be read") from error
        if stored is None:
            raise corrupt(sha256, "is missing from the store")
        return closing(stored)

    def _open_plain(self, sha256: str) -> Stored | None:
        # First, as an encrypted one is put beside it before it goes.
        try:
            return Stored(sha256, os.open(self._path(sha256), READ))
        except FileNotFoundError:
            return None

    def _open_encrypted(self, sha256: str) -> Stored | None:
        try:
            descriptor = os.open(self._path(sha256, Kind.ENCRYPTED), READ)
        except FileNotFoundError:
            return None
        try:
            name = named_key(sha256, os.pread(descriptor, TAG_BYTES, 0))
            decryptor = Decryptor(self._keys.unwrap(sha256, self.read_key(sha256, name)))
            return Stored(sha256 + Kind.ENCRYPTED, descriptor, decryptor, f"{sha256}.{name}.key")
        except BaseException:
            os.close(descriptor)
            raise

    def read_key(self, sha256: str, name: str) -> bytes | None:
        """A wrapped data key; None where there is none."""
        try:
            with os.fdopen(os.open(self.root / f"{sha256}.{name}.key", READ), "rb") as file:
                return file.read(LARGEST_KEPT_BYTES)
        except FileNotFoundError:
            return None

    def _checked(self, sha256: str, stored: Stored) -> Iterator[bytes]:
        return checked(sha256, pieces_of(stored.descriptor), stored.decryptor)

    def read_verified(self, sha256: str) -> bytes:
        """See `ReadableBlobs`."""
        with self.opened(sha256) as stored:
            if stored.decryptor is not None:
                return b"".join(self._checked(sha256, stored))
            with os.fdopen(stored.descriptor, "rb", buffering=0, closefd=False) as source:
                data = source.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise corrupt(sha256, "holds other bytes than its name says")
        return data

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """See `ReadableBlobs`."""
        with self.opened(sha256) as stored:
            held = b""
            for piece in self._checked(sha256, stored):
                if held:
                    yield held
                held = piece
            if held:
                yield held

    def copy_verified(self, sha256: str, destination: Path, mode: int = 0o600) -> int:
        """See `ReadableBlobs`."""
        size_bytes = 0
        with self.opened(sha256) as stored, new_file(destination, mode) as target:
            for piece in self._checked(sha256, stored):
                write_all(target, piece)
                size_bytes += len(piece)
        return size_bytes

    def verify(self, sha256: str) -> None:
        """See `ReadableBlobs`."""
        with self.opened(sha256) as stored:
            for _ in self._checked(sha256, stored):
                pass

    @contextlib.contextmanager
    def vouched(self, sha256: str) -> Iterator[tuple[Stored, Iterator[bytes]]]:
        """A blob and its file in pieces, of which the last comes only if all are what they should be."""
        with self.opened(sha256) as stored:
            yield stored, vouched(sha256, pieces_of(stored.descriptor), stored.decryptor)

    def key_in_use(self, sha256: str) -> str | None:
        """See `ReadableBlobs`."""
        try:
            descriptor = os.open(self._path(sha256, Kind.ENCRYPTED), READ)
        except FileNotFoundError:
            return None
        try:
            return key_name(os.read(descriptor, TAG_BYTES))
        finally:
            os.close(descriptor)

    def _path(self, sha256: str, kind: Kind = Kind.PLAIN) -> Path:
        return self.root / (check_digest(sha256) + kind)


@contextlib.contextmanager
def closing(stored: Stored) -> Iterator[Stored]:
    """Close it when the block ends."""
    try:
        yield stored
    finally:
        os.close(stored.descriptor)
