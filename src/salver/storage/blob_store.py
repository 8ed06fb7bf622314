"""What every artifact store does, and what the stores share.

A store keeps blobs: files named by the SHA-256 of what they hold, whichever way they are kept.

    DIGEST              what it holds, as it is
    DIGEST.enc          the same encrypted; the file begins with the name of its data key
    DIGEST.NAME.key     that data key, wrapped; see `salver.storage.blob_keys`
    DIGEST.pin          of a remote store: somebody has counted on the blob being there, at that time
    DIGEST.doom         of a remote store: the blob is being collected

A blob's name is a promise that nobody keeps but the reader: disks rot and people edit. So every way
of getting bytes for use computes the hash of the very bytes that it hands out.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from salver.protocol.errors import SalverError
from salver.storage.blob_cipher import Decryptor, key_name
from salver.storage.blob_keys import KeyEncryption

__all__ = [
    "Blob",
    "Blobs",
    "Item",
    "Kind",
    "ReadableBlobs",
    "check_digest",
    "checked",
    "corrupt",
    "item_of",
    "named_key",
    "vouched",
]

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"([0-9a-f]{64})(?:\.([0-9a-f]{16})(?=\.key$))?(|\.enc|\.key|\.pin|\.doom)")


class Blob(msgspec.Struct, frozen=True):
    """What was stored: the digest that names it and its size."""

    sha256: str
    size_bytes: int


class Kind(enum.StrEnum):
    """What a file of a store is, by the end of its name."""

    PLAIN = ""
    ENCRYPTED = ".enc"
    KEY = ".key"
    PIN = ".pin"
    DOOM = ".doom"


class Item(msgspec.Struct, frozen=True):
    """A file in a store, as it was when it was listed."""

    name: str
    sha256: str
    kind: Kind
    key_name: str
    size_bytes: int
    modified_s: float
    version: str
    """Another one when the file was written anew."""


class ReadableBlobs(Protocol):
    """An artifact store to read from. Any number of processes and threads may use it at once; everything blocks.

    What cannot be reached raises STORE_UNAVAILABLE, a key that is needed and not to be had INVALID_SETTING.
    """

    @property
    def root(self) -> Path:
        """The directory in which blobs that are held lie, for workers to read."""

    def size_bytes(self, sha256: str) -> int | None:
        """The size of the blob of that name, None where there is none; says nothing about its bytes."""

    def hold(self, sha256s: Iterable[str]) -> AbstractContextManager[None]:
        """Have these blobs in `root` until the block ends; raises CORRUPT_ARTIFACT for one that is missing."""

    def data_keys(self, sha256s: Iterable[str]) -> dict[str, bytes]:
        """The data keys of those that are encrypted. REQUIRES that they are held."""

    def read_verified(self, sha256: str) -> bytes:
        """The bytes of a blob, whose digest was computed on exactly these bytes.

        Raises CORRUPT_ARTIFACT when the blob is missing or its bytes have another digest.
        """

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """The bytes of a blob piece by piece, the last one only if all together are what the name says.

        Raises CORRUPT_ARTIFACT otherwise, in place of the last piece at the latest.
        """

    def copy_verified(self, sha256: str, destination: Path, mode: int = 0o600) -> int:
        """Copy a blob into the new file `destination` and return its size.

        The digest is computed on the bytes written; a copy that differs is removed again and
        CORRUPT_ARTIFACT raised, STORAGE_FULL likewise. Not fsynced: copies are scratch.
        Raises FileExistsError when `destination` exists.
        """

    def verify(self, sha256: str) -> None:
        """Read a blob to its end where it is kept; raises CORRUPT_ARTIFACT unless it is there and sound."""

    def key_in_use(self, sha256: str) -> str | None:
        """The name of the data key of an encrypted blob; None where there is no such blob."""


class Blobs(ReadableBlobs, Protocol):
    """An artifact store."""

    @property
    def copies(self) -> tuple[Blobs, ...]:
        """Stores on this machine that keep copies of what is here, for the upkeep to look after too."""

    def put_file(self, path: Path) -> Blob:
        """Copy the file at `path` into the store and return its digest and size.

        Durable on return; the same bytes take space once. The digest is of the bytes stored even if the
        file is changed meanwhile. Raises INVALID_ARTIFACT for anything but a readable regular file (symbolic
        links included) and STORAGE_FULL; neither leaves a blob behind.
        """

    def receive(self, source: int, expected: str) -> Blob:
        """Store what comes from the open descriptor `source`, such as a pipe's end, to its end, as `put_file` does.

        Raises CORRUPT_ARTIFACT, and leaves nothing behind, unless it is what the digest `expected` says.
        """

    def discard_unfinished(self) -> int:
        """Remove what killed writers left and return how many files; what is being written stays."""

    def usage_bytes(self) -> int:
        """The sizes of all files in the store, unfinished ones included."""

    def items(self) -> Iterator[Item]:
        """Every file in the store that is a blob or belongs to one."""

    def remove(self, items: Sequence[Item]) -> bool:
        """Remove these files of one blob, if each still is as it was listed; whether they were.

        Nobody who has stored the blob since, or found it there, loses it. Of a blob that goes, all that was
        listed has to be named. Whoever is killed meanwhile leaves keys without a blob, never the reverse.
        """

    def encrypt(self, sha256: str) -> bool:
        """Keep a plain blob encrypted from now on; whether it was plain. Raises CORRUPT_ARTIFACT for a bad one.

        Whoever is killed meanwhile leaves it plain, encrypted or both. REQUIRES a key-encryption key.
        """

    def rewrap(self, item: Item, old: KeyEncryption, new: KeyEncryption) -> bool:
        """Wrap a data key anew, all or nothing; whether it was still under the old one."""


def item_of(name: str, size_bytes: int, modified_s: float, version: str) -> Item | None:
    """What a file of that name is; None for no part of a store."""
    found = _NAME.fullmatch(name)
    if found is None or (found[3] == Kind.KEY) != bool(found[2]):
        return None
    return Item(name, found[1], Kind(found[3]), found[2] or "", size_bytes, modified_s, version)


def check_digest(sha256: str) -> str:
    """Raises INVALID_ARTIFACT for what names no blob."""
    if _SHA256.fullmatch(sha256) is None:
        raise SalverError("INVALID_ARTIFACT", f"{sha256[:80]!r} is not a SHA-256 digest", "give 64 hex digits")
    return sha256


def checked(sha256: str, pieces: Iterable[bytes], decryptor: Decryptor | None) -> Iterator[bytes]:
    """What a blob holds, from the pieces that are kept; raises CORRUPT_ARTIFACT, at the end at the latest."""
    digest = hashlib.sha256()
    for plain in _plain(sha256, pieces, decryptor):
        digest.update(plain)
        yield plain
    if digest.hexdigest() != sha256:
        raise corrupt(sha256, "holds other bytes than its name says")


def _plain(sha256: str, pieces: Iterable[bytes], decryptor: Decryptor | None) -> Iterator[bytes]:
    if decryptor is None:
        yield from pieces
        return
    try:
        for piece in pieces:
            yield from decryptor.update(piece)
        yield decryptor.finish()
    except ValueError as error:
        raise corrupt(sha256, f"does not decrypt: {error}") from None


def vouched(sha256: str, pieces: Iterable[bytes], decryptor: Decryptor | None) -> Iterator[bytes]:
    """The pieces themselves, the last of them only if all together hold what the name says."""
    held: list[bytes] = []

    def passing() -> Iterator[bytes]:
        for piece in pieces:
            held.append(piece)
            yield piece

    for _ in checked(sha256, passing(), decryptor):
        while len(held) > 1:
            yield held.pop(0)
    yield from held


def named_key(sha256: str, tag: bytes) -> str:
    """The name of the data key of an encrypted blob that begins so; raises CORRUPT_ARTIFACT where it is none."""
    name = key_name(tag)
    if name is None:
        raise corrupt(sha256, "does not decrypt: it is no encrypted file")
    return name


def corrupt(sha256: str, what: str) -> SalverError:
    """A blob that is not what it should be."""
    return SalverError(
        "CORRUPT_ARTIFACT",
        f"blob {sha256} {what}",
        "register the same file again, or restore the blob from a backup",
    )
