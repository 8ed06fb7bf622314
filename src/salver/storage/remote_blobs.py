"""An artifact store in another place, with a cache of its blobs on this machine.

What is stored goes there before it counts as stored. What is used is fetched into the cache first, which
is a `BlobStore`, verified on the way; workers and the data path read nothing else. So versions that are
cached load while the other place is not to be had.

Storing and collecting may meet. Who stores writes a pin and then looks for a doom; who collects writes
a doom and then looks for a pin: of two that meet at least one sees the other, and gives way.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from salver.protocol.errors import SalverError
from salver.storage.blob_cipher import TAG_BYTES, Decryptor, key_name, plain_size_bytes
from salver.storage.blob_keys import LARGEST_KEPT_BYTES, KeyEncryption, WrappingKeys, rewrapped
from salver.storage.blob_store import (
    Blob,
    Blobs,
    Item,
    Kind,
    check_digest,
    checked,
    corrupt,
    item_of,
    named_key,
    vouched,
)
from salver.storage.blobs import BlobStore
from salver.storage.leases import Leases
from salver.storage.snapshot import write_all

__all__ = ["Bucket", "Listed", "RemoteBlobs"]

_LARGE_BYTES: Final = 8 << 20
"""From this size on a file is sent in parts."""
_DOOM_S: Final = 3600.0
"""A doom that is older was left by somebody who died."""


class Listed(msgspec.Struct, frozen=True):
    """An object in a bucket."""

    name: str
    size_bytes: int
    modified_s: float
    version: str
    """Another one when other bytes were written."""


class Bucket(Protocol):
    """Named objects elsewhere, each written and read whole. Raises STORE_UNAVAILABLE."""

    @property
    def url(self) -> str:
        """Where it is."""

    def head(self, name: str) -> Listed | None:
        """What an object is; None where there is none."""

    def read(self, name: str, largest_bytes: int) -> bytes | None:
        """A small object; None where there is none."""

    def pieces(self, listed: Listed) -> Iterator[bytes]:
        """A large object piece by piece."""

    def write(self, name: str, data: bytes, *, create: bool = False) -> bool:
        """Write an object; with `create` only where there is none. Whether it was written."""

    def write_large(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object that is not there before its last piece has come."""

    def remove(self, name: str) -> None:
        """Remove an object, there or not."""

    def list(self) -> Iterator[Listed]:
        """All objects."""


class RemoteBlobs:
    """Blobs in a bucket: `salver.storage.blob_store.Blobs` says what it does."""

    def __init__(self, bucket: Bucket, local: BlobStore, keys: WrappingKeys, cache_bytes: int) -> None:
        self._bucket = bucket
        self._local = local
        self._keys = keys
        self._cache_bytes = cache_bytes
        self._leases = Leases(local.root / "held")

    def __repr__(self) -> str:
        return f"<RemoteBlobs {self._bucket.url}>"

    @property
    def root(self) -> Path:
        """See `Blobs`."""
        return self._local.root

    @property
    def copies(self) -> tuple[Blobs, ...]:
        """See `Blobs`."""
        return (self._local,)

    # Putting.

    def put_file(self, path: Path) -> Blob:
        """See `Blobs`."""
        blob = self._local.put_file(path)
        with self._leases.taken([blob.sha256]):
            self.upload(blob.sha256)
            self._evict()
        return blob

    def receive(self, source: int, expected: str) -> Blob:
        """See `Blobs`."""
        with self._leases.taken([check_digest(expected)]):
            blob = self._local.receive(source, expected)
            self.upload(blob.sha256)
            self._evict()
        return blob

    def upload(self, sha256: str) -> None:
        """Have a blob that is on this machine in the bucket; raises CORRUPT_ARTIFACT for one that is not sound."""
        self._pin(sha256)
        with self._local.vouched(sha256) as (stored, pieces):
            there = self._bucket.head(stored.name)
            if there is None or there.size_bytes != stored.size_bytes:
                if stored.key_file:
                    kept = self._local.read_key(sha256, stored.key_file.split(".")[1])
                    self._bucket.write(stored.key_file, kept or b"", create=True)
                if stored.size_bytes < _LARGE_BYTES:
                    self._bucket.write(stored.name, b"".join(pieces), create=there is None)
                else:
                    self._bucket.write_large(stored.name, pieces)
            if stored.decryptor is not None:
                self._bucket.remove(sha256)

    def _pin(self, sha256: str) -> None:
        self._bucket.write(sha256 + Kind.PIN, os.urandom(16))  # another one each time
        doom = self._bucket.head(sha256 + Kind.DOOM)
        if doom is None:
            return
        pin = self._bucket.head(sha256 + Kind.PIN)
        if pin is None or pin.modified_s - doom.modified_s < _DOOM_S:
            raise SalverError("CONFLICT", f"blob {sha256} is just being collected", "store it again in a moment")

    def discard_unfinished(self) -> int:
        """See `Blobs`."""
        return self._local.discard_unfinished()

    # Reading.

    def _find(self, sha256: str) -> Listed | None:
        check_digest(sha256)
        return self._bucket.head(sha256) or self._bucket.head(sha256 + Kind.ENCRYPTED)

    def size_bytes(self, sha256: str) -> int | None:
        """See `Blobs`."""
        found = self._find(sha256)
        if found is None:
            return None
        return plain_size_bytes(found.size_bytes) if found.name.endswith(Kind.ENCRYPTED) else found.size_bytes

    @contextlib.contextmanager
    def hold(self, sha256s: Iterable[str]) -> Iterator[None]:
        """See `Blobs`; what is here is verified too, and fetched anew if it is not sound."""
        digests = sorted(set(sha256s))
        with self._leases.taken(digests):
            fetched = [sha256 for sha256 in digests if self._have(sha256)]
            if fetched:
                self._evict()
            yield

    def _have(self, sha256: str) -> bool:
        """Have a sound copy on this machine; whether it had to be fetched."""
        with self._leases.one_at_a_time(check_digest(sha256)):
            try:
                if self._local.size_bytes(sha256) is not None:
                    self._local.verify(sha256)
                    self._local.touch(sha256)
                    return False
            except SalverError as error:
                if error.code != "CORRUPT_ARTIFACT":
                    raise
            self._fetch(sha256)
        return True

    def _fetch(self, sha256: str) -> None:
        with self._opened(sha256) as (listed, key_file, decryptor, pieces), self._local.new_incoming() as file:
            for piece in vouched(sha256, pieces, decryptor):
                write_all(file.descriptor, piece)
            before = [item for item in self._local.items() if item.sha256 == sha256 and item.kind is not Kind.KEY]
            if key_file:
                self._local.install_key(*key_file)
            self._local.install(file, listed.name)
            # One of the other kind would be read in its place.
            self._local.remove([item for item in before if item.name != listed.name])

    @contextlib.contextmanager
    def _opened(
        self, sha256: str
    ) -> Iterator[tuple[Listed, tuple[str, bytes] | None, Decryptor | None, Iterator[bytes]]]:
        """A blob as it is in the bucket: what it is, its wrapped key, how it is read, and its pieces."""
        listed = self._find(sha256)
        if listed is None:
            raise corrupt(sha256, f"is missing from the store {self._bucket.url}")
        pieces = self._bucket.pieces(listed)
        if not listed.name.endswith(Kind.ENCRYPTED):
            yield listed, None, None, pieces
            return
        first = next(pieces, b"")
        name = named_key(sha256, first[:TAG_BYTES])
        kept = self._bucket.read(f"{sha256}.{name}.key", LARGEST_KEPT_BYTES)
        decryptor = Decryptor(self._keys.unwrap(sha256, kept))
        yield listed, (f"{sha256}.{name}.key", kept or b""), decryptor, itertools.chain([first], pieces)

    def data_keys(self, sha256s: Iterable[str]) -> dict[str, bytes]:
        """See `Blobs`."""
        return self._local.data_keys(sha256s)

    def read_verified(self, sha256: str) -> bytes:
        """See `Blobs`."""
        with self.hold([sha256]):
            return self._local.read_verified(sha256)

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """See `Blobs`."""
        with self.hold([sha256]):
            yield from self._local.pieces(sha256)

    def copy_verified(self, sha256: str, destination: Path, mode: int = 0o600) -> int:
        """See `Blobs`."""
        with self.hold([sha256]):
            return self._local.copy_verified(sha256, destination, mode)

    def verify(self, sha256: str) -> None:
        """See `Blobs`."""
        try:
            with self._opened(sha256) as (_, _, decryptor, pieces):
                for _ in checked(sha256, pieces, decryptor):
                    pass
        except SalverError as error:
            if error.code != "CORRUPT_ARTIFACT":
                raise
            remedy = f"remove what is called {sha256}* from {self._bucket.url}, then register the same file again"
            raise SalverError(error.code, error.message, remedy) from None

    # The cache.

    def _evict(self) -> None:
        """Remove what was not used for longest, as much as is too much; never what is leased or nowhere else."""
        files: dict[str, list[Item]] = defaultdict(list)
        for item in self._local.items():
            files[item.sha256].append(item)
        over_bytes = sum(item.size_bytes for items in files.values() for item in items) - self._cache_bytes
        for sha256, items in sorted(files.items(), key=lambda pair: max(item.modified_s for item in pair[1])):
            if over_bytes <= 0:
                return
            try:
                if self._find(sha256) is None:
                    continue
            except SalverError:
                return  # who knows whether it is there
            with self._leases.settled() as leased:
                if sha256 not in leased and self._local.remove(items):
                    over_bytes -= sum(item.size_bytes for item in items)

    # Upkeep.

    def usage_bytes(self) -> int:
        """See `Blobs`."""
        return sum(listed.size_bytes for listed in self._bucket.list())

    def items(self) -> Iterator[Item]:
        """See `Blobs`."""
        for listed in self._bucket.list():
            item = item_of(listed.name, listed.size_bytes, listed.modified_s, listed.version)
            if item is not None:
                yield item

    def key_in_use(self, sha256: str) -> str | None:
        """See `Blobs`."""
        listed = self._bucket.head(sha256 + Kind.ENCRYPTED)
        if listed is None:
            return None
        beginning = msgspec.structs.replace(listed, size_bytes=min(listed.size_bytes, TAG_BYTES))
        return key_name(b"".join(self._bucket.pieces(beginning)))

    def remove(self, items: Sequence[Item]) -> bool:
        """See `Blobs`."""
        sha256 = items[0].sha256
        if not any(item.kind in (Kind.PLAIN, Kind.ENCRYPTED) for item in items):
            return self._remove_unchanged(items, frozenset())
        self._bucket.write(sha256 + Kind.DOOM, b"")
        try:
            # Keys can stay behind; what counts on the blob, or is one, must not be new.
            new = frozenset(sha256 + kind for kind in (Kind.PLAIN, Kind.ENCRYPTED, Kind.PIN))
            if not self._remove_unchanged([item for item in items if item.kind is not Kind.DOOM], new):
                return False
        finally:
            self._bucket.remove(sha256 + Kind.DOOM)
        with self._leases.settled() as leased:
            if sha256 not in leased:
                self._local.remove([item for item in self._local.items() if item.sha256 == sha256])
        return True

    def _remove_unchanged(self, items: Sequence[Item], absent: frozenset[str]) -> bool:
        known = {item.name: item.version for item in items}
        for name in known.keys() | absent:
            found = self._bucket.head(name)
            if known.get(name) != (found.version if found else None):
                return False
        for name in sorted(known, key=lambda name: name.endswith((Kind.KEY, Kind.PIN))):
            self._bucket.remove(name)
        return True

    def encrypt(self, sha256: str) -> bool:
        """See `Blobs`."""
        if self._bucket.head(sha256) is None:
            return False
        with self.hold([sha256]):
            self._local.encrypt(sha256)
            self.upload(sha256)
        return True

    def rewrap(self, item: Item, old: KeyEncryption, new: KeyEncryption) -> bool:
        """See `Blobs`."""
        kept = self._bucket.read(item.name, LARGEST_KEPT_BYTES)
        if kept is None:
            return False  # collected meanwhile
        wrapped = rewrapped(kept, item.sha256, old, new)
        if wrapped is not None:
            self._bucket.write(item.name, wrapped)
        return wrapped is not None
