"""The artifact store that is a directory: see `salver.storage.blob_store` for the names in it.

blobs/DIGEST...      complete, read-only, durable
blobs/incoming/      files being written, each locked by its writer; never seen as blobs
blobs/.lock          held shared by who puts a file into place, alone by who removes one
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.storage.blob_cipher import KEY_BYTES, encrypted, key_name, new_tag
from salver.storage.blob_files import Incoming, IncomingFile, locked, open_regular
from salver.storage.blob_keys import HomeKeys, KeyEncryption, WrappingKeys, rewrapped
from salver.storage.blob_reader import BlobReader, closing
from salver.storage.blob_store import Blob, Blobs, Item, Kind, check_digest, corrupt, item_of
from salver.storage.snapshot import write_all

__all__ = ["Blob", "BlobStore"]

_NO_KEYS: Final = HomeKeys("")


class BlobStore(BlobReader):
    """A directory of blobs: `salver.storage.blob_store.Blobs` says what it does."""

    __slots__ = ("_incoming", "_lock")

    _keys: WrappingKeys
    copies: tuple[Blobs, ...] = ()

    def __init__(self, root: Path, keys: WrappingKeys = _NO_KEYS) -> None:
        super().__init__(root, keys)
        self._incoming = Incoming(root)
        self._lock = root / ".lock"

    def __repr__(self) -> str:
        return f"<BlobStore {self.root}>"

    # Putting.

    def put_file(self, path: Path) -> Blob:
        """See `Blobs`."""
        source = open_regular(path)
        try:
            return self._put(source)
        finally:
            os.close(source)

    def receive(self, source: int, expected: str) -> Blob:
        """See `Blobs`."""
        return self._put(source, check_digest(expected))

    def _put(self, source: int, expected: str | None = None) -> Blob:
        with self._incoming.new() as file:
            digest = _Counted(source)
            if not self._keys.encrypts:
                for piece in iter(lambda: digest.read(1 << 20), b""):
                    write_all(file.descriptor, piece)
            else:
                key, tag = os.urandom(KEY_BYTES), new_tag()
                for piece in encrypted(digest.read, key, tag):
                    write_all(file.descriptor, piece)
            blob = digest.blob()
            if expected not in (None, blob.sha256):
                raise corrupt(str(expected), "holds other bytes than its name says")
            if self._renew(blob.sha256):
                self._drop_plain(blob.sha256)
            elif not self._keys.encrypts:
                # Replacing an equal blob heals one that has rotted, and costs nothing else.
                self.install(file, blob.sha256)
            else:
                self.install_key(f"{blob.sha256}.{key_name(tag)}.key", self._keys.wrap(blob.sha256, key))
                self.install(file, blob.sha256 + Kind.ENCRYPTED)
                self._drop_plain(blob.sha256)
        return blob

    def install(self, file: IncomingFile, name: str) -> None:
        """Put a file into place. REQUIRES, of an encrypted blob, that its key is there."""
        with locked(self._lock, shared=True):
            file.install(name)

    def install_key(self, name: str, kept: bytes) -> None:
        """Put a wrapped data key into place, or another wrapping of it."""
        with self._incoming.new() as file:
            write_all(file.descriptor, kept)
            self.install(file, name)

    def _renew(self, sha256: str) -> bool:
        """Let an encrypted blob that is there and sound count as stored now; whether it is."""
        try:
            stored = self._open_encrypted(sha256)
            if stored is None:
                return False
            with closing(stored):
                for _ in self._checked(sha256, stored):
                    pass
            self.touch(sha256)
        except (SalverError, FileNotFoundError):
            return False
        return self._path(sha256, Kind.ENCRYPTED).exists()

    def _drop_plain(self, sha256: str) -> None:
        if self._keys.encrypts:
            self._path(sha256).unlink(missing_ok=True)

    def new_incoming(self) -> AbstractContextManager[IncomingFile]:
        """A file to write to, for `install`."""
        return self._incoming.new()

    def discard_unfinished(self) -> int:
        """See `Blobs`."""
        return self._incoming.discard_unfinished()

    # Upkeep.

    def usage_bytes(self) -> int:
        """See `Blobs`."""
        return sum(item.size_bytes for item in self.items()) + self._incoming.usage_bytes()

    def items(self) -> Iterator[Item]:
        """See `Blobs`."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    item = item_of(entry.name, found.st_size, found.st_mtime, _version(found))
                    if item is not None and stat.S_ISREG(found.st_mode):
                        yield item

    def remove(self, items: Sequence[Item]) -> bool:
        """See `Blobs`."""
        with locked(self._lock):
            try:
                if any(_version((self.root / item.name).lstat()) != item.version for item in items):
                    return False
            except FileNotFoundError:
                return False
            for item in sorted(items, key=lambda item: item.kind is Kind.KEY):
                (self.root / item.name).unlink()
        return True

    def touch(self, sha256: str) -> None:
        """Let a blob count as used now."""
        with locked(self._lock, shared=True):
            for kind in (Kind.PLAIN, Kind.ENCRYPTED):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(self._path(sha256, kind))

    def encrypt(self, sha256: str) -> bool:
        """See `Blobs`."""
        assert self._keys.encrypts
        stored = self._open_plain(sha256)
        if stored is None:
            return False
        with closing(stored):
            if self._renew(sha256):
                self._drop_plain(sha256)
            else:
                self._put(stored.descriptor, expected=sha256)
        return True

    def rewrap(self, item: Item, old: KeyEncryption, new: KeyEncryption) -> bool:
        """See `Blobs`."""
        kept = self.read_key(item.sha256, item.key_name)
        if kept is None:
            return False  # collected meanwhile
        wrapped = rewrapped(kept, item.sha256, old, new)
        if wrapped is not None:
            self.install_key(item.name, wrapped)
        return wrapped is not None


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}"


class _Counted:
    """Reads an open file, and knows what it has read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def read(self, count: int) -> bytes:
        """So many bytes, less at the end only."""
        data = os.read(self._descriptor, count)
        while data and len(data) < count and (more := os.read(self._descriptor, count - len(data))):
            data += more
        self._digest.update(data)
        self._size_bytes += len(data)
        return data

    def blob(self) -> Blob:
        """What it was."""
        return Blob(self._digest.hexdigest(), self._size_bytes)
