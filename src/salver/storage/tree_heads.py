"""Signed tree heads: what the journal came to at some moments, in copies that outlive a rewritten database.

A head says that the first `size` records of the journal have this root (`salver.storage.merkle`; a leaf is the
canonical bytes of a record, which hold its place). Each is a row of `tree_heads` and a line of `audit/heads.jsonl`
in the home; lines that are kept elsewhere tell what the home itself cannot, that all of it was exchanged.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
from sqlalchemy import Connection, Row, select

from salver.protocol.errors import SalverError
from salver.storage.journal_record import canonical_json
from salver.storage.schema import tree_heads
from salver.storage.snapshot import full_disk_is_reported, sync_directory, write_all

__all__ = ["HeadFile", "HeadKey", "HeadReader", "TreeHead", "parse_heads", "read_heads", "sign_head", "signature_flaw"]

_CONTEXT: Final = b"salver tree head v1\n"
_LONGEST_LINE_BYTES: Final = 4096
_MOST_HEADS: Final = 2_000_000
"""Years of one a minute."""


class TreeHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the first `size` records come to: the root of their tree in hexadecimal, signed with Ed25519."""

    size: int
    root: str
    at_s: float
    key_id: str
    """Fingerprint of the key; see `salver.security.keys`."""
    signature: str

    @property
    def message(self) -> bytes:
        """What is signed."""
        fields = {"size": self.size, "root": self.root, "at_s": self.at_s, "key_id": self.key_id}
        return _CONTEXT + canonical_json(fields).encode()


class HeadKey(Protocol):
    """A private key: `salver.security.keys.AuditKey`."""

    @property
    def key_id(self) -> str:
        """Its fingerprint."""

    def sign(self, message: bytes) -> bytes:
        """A signature."""


class HeadReader(Protocol):
    """A public key: `salver.security.keys.AuditPublicKey`."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether its owner signed `message`."""


def sign_head(connection: Connection, key: HeadKey, size: int, root: bytes, at_s: float) -> TreeHead:
    """Sign what the journal comes to and keep it, in the transaction that has read it.

    REQUIRES no head of this size.
    """
    unsigned = TreeHead(size, root.hex(), at_s, key.key_id, "")
    head = msgspec.structs.replace(unsigned, signature=key.sign(unsigned.message).hex())
    connection.execute(tree_heads.insert().values(msgspec.structs.asdict(head)))
    return head


def read_heads(connection: Connection, after: int | None = None, last: int | None = None) -> tuple[TreeHead, ...]:
    """All heads in order, or those over more than `after` records; or only the `last` ones, the newest first."""
    query = select(tree_heads) if after is None else select(tree_heads).where(tree_heads.c.size > after)
    query = query.order_by(tree_heads.c.size) if last is None else query.order_by(tree_heads.c.size.desc()).limit(last)
    return tuple(_head(row) for row in connection.execute(query))


def _head(row: Row[tuple[object, ...]]) -> TreeHead:
    return TreeHead(**row._mapping)


def signature_flaw(head: TreeHead, keys: Mapping[str, HeadReader]) -> str:
    """What is wrong with the signature of a head; nothing if it is sound."""
    key = keys.get(head.key_id)
    if key is None:
        return f"is signed with key {head.key_id[:16]}, which is not known here and which no known key is linked to"
    try:
        signature = bytes.fromhex(head.signature)
        # One way to write it, so that not even the case of a digit may change.
        fits = signature.hex() == head.signature and key.verifies(signature, head.message)
    except (ValueError, TypeError):  # columns of SQLite hold anything
        fits = False
    return "" if fits else "has a signature that does not fit"


def parse_heads(data: bytes, name: str) -> tuple[TreeHead, ...]:
    """Heads of a file: one JSON document each line, or one head alone as `salver audit head --json` prints it.

    A last line without an end may be one whose writing was interrupted, and is left out if it cannot be read. Raises
    CORRUPT_ARTIFACT for any other line that is no head, naming it.
    """
    lines = data.split(b"\n")
    if len(lines) > _MOST_HEADS:
        raise SalverError("CORRUPT_ARTIFACT", f"{name} has {len(lines)} lines", f"at most {_MOST_HEADS} are read")
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            # A longer one is none, cut or whole.
            found.append(msgspec.json.decode(line[:_LONGEST_LINE_BYTES], type=TreeHead))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines) and len(lines) > 1:
                break
            raise SalverError(
                "CORRUPT_ARTIFACT",
                f"line {number} of {name} is no tree head",
                "compare it with a copy that was kept elsewhere; `salver audit head --json` prints one",
            ) from error
    return tuple(found)


class HeadFile:
    """The file with all tree heads of a home, which only grows (0600 in a directory 0700)."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> tuple[TreeHead, ...]:
        """All heads in it; none where there is no file. Raises CORRUPT_ARTIFACT for a line that is no head."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        return parse_heads(data, self._path.name)

    def last_size(self) -> int:
        """The size of the head in the last whole line; 0 where there is none that can be read."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * _LONGEST_LINE_BYTES))
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return 0
        try:
            return msgspec.json.decode(lines[-2], type=TreeHead).size
        except (IndexError, msgspec.DecodeError):
            return 0

    def add(self, heads: Iterable[TreeHead]) -> None:
        """Append heads, durable on return; the torn end that a death while writing has left is removed first.

        Safe against others who append at the same moment. Raises STORAGE_FULL.
        """
        lines = b"".join(msgspec.json.encode(head) + b"\n" for head in heads)
        with full_disk_is_reported():
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _cut_torn_end(descriptor)
                write_all(descriptor, lines)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(self._path.parent)


def _cut_torn_end(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    from_byte = max(0, size - 2 * _LONGEST_LINE_BYTES)
    end = os.pread(descriptor, 2 * _LONGEST_LINE_BYTES, from_byte)
    if end and not end.endswith(b"\n"):
        os.ftruncate(descriptor, from_byte + end.rfind(b"\n") + 1)
