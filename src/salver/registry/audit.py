"""The audit of a home: its journal's signed tree heads, their copies outside of the database, and what they prove."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.security.keys import AuditKey, AuditPublicKey, audit_key
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal
from salver.storage.merkle import contains, leaf_hash
from salver.storage.snapshot import create_once, sync_directory
from salver.storage.tree_heads import HeadFile, TreeHead, signature_flaw
from salver.telemetry.logs import log_event

__all__ = ["Audit", "Inclusion", "known_keys", "proof_flaw"]

SIGNED_AFTER_S: Final = 60.0
"""How long a record stays without a tree head over it while a controller runs."""
_COPIED: Final = 10_000
"""Heads that are copied into the file at once."""


class Inclusion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That a record is in the journal, for one who knows the public key and nothing else of the home."""

    seq: int
    record: str
    """Its canonical bytes."""
    path: tuple[str, ...]
    """Audit path of RFC 6962, the sibling of the leaf first, in hexadecimal."""
    head: TreeHead


class Audit:
    """The audit of one home. REQUIRES the home lock, or to be the one controller below its holder."""

    def __init__(self, home: Home, database: Database, clock: Clock) -> None:
        self._directory = home.path / "audit"
        self._file = HeadFile(self._directory / "heads.jsonl")
        self._clock = clock
        self._key = functools.cache(lambda: _kept_key(home, self._directory))
        self.journal = Journal(database, clock, self._key)
        self._unsigned_since_s: float | None = None

    def tick(self) -> None:
        """Sign what has waited for long enough, and copy what is signed. To be called every few seconds."""
        if self.journal.unsigned():
            now_s = self._clock.monotonic_s()
            if self._unsigned_since_s is None:
                self._unsigned_since_s = now_s
            if now_s - self._unsigned_since_s >= SIGNED_AFTER_S:
                self.seal()
                return
        else:
            self._unsigned_since_s = None
        self.copy_heads()

    def seal(self) -> TreeHead | None:
        """Sign what the journal comes to, copy it, and return its newest head; None for an empty journal."""
        head = self.journal.sign()
        self._unsigned_since_s = None
        self.copy_heads()
        return head

    def copy_heads(self) -> None:
        """Bring every head of the database that is not there yet into the file and the log."""
        while heads := self.journal.heads(after=self._file.last_size())[:_COPIED]:
            self._file.add(heads)
            for head in heads:
                log_event("tree_head", **msgspec.structs.asdict(head))

    def verify(self, kept: Iterable[TreeHead] = ()) -> ChainCheck:
        """Check the whole journal against its heads here, in the file, and those `kept` elsewhere."""
        try:
            copied = self._file.read()
        except SalverError as error:
            log_event("heads_unreadable", level=logging.ERROR, problem=str(error))
            check = self.journal.verify(self.keys(), kept)
            return ChainCheck.flawed(check.records, 1, error.message, check.heads) if check.ok else check
        return self.journal.verify(self.keys(), (*copied, *kept))

    def keys(self) -> Mapping[str, AuditPublicKey]:
        """The public keys of all who have signed heads of this home, by their fingerprints."""
        own = self._key().public
        return known_keys(self._directory) | {own.key_id: own}

    def prove(self, seq: int) -> Inclusion:
        """Prove that record `seq` is in the journal; NOT_FOUND where there is none. Reads the whole journal."""
        head = self.seal()
        if head is None or not 1 <= seq <= head.size:
            has = f"it has records 1 to {head.size}" if head else "it is empty"
            raise SalverError("NOT_FOUND", f"the journal has no record {seq}", has)
        record, path = self.journal.prove(seq, head.size)
        return Inclusion(seq, record, tuple(sibling.hex() for sibling in path), head)


def known_keys(directory: Path) -> dict[str, AuditPublicKey]:
    """The public keys that lie as *.pub in the directory `audit` of a home, by their fingerprints."""
    keys = [AuditPublicKey.parse(path.read_bytes(), path.name) for path in sorted(directory.glob("*.pub"))]
    return {key.key_id: key for key in keys}


def proof_flaw(proof: Inclusion, keys: Mapping[str, AuditPublicKey]) -> str:
    """Why `proof` proves nothing to one who knows these keys; nothing if it does."""
    flaw = signature_flaw(proof.head, keys)
    if flaw:
        return f"the tree head {flaw}"
    try:
        path = [bytes.fromhex(sibling) for sibling in proof.path]
        root = bytes.fromhex(proof.head.root)
        said = msgspec.json.decode(proof.record, type=_Numbered).seq
    except (ValueError, msgspec.DecodeError):
        return "it cannot be read"
    if said != proof.seq:
        return f"the record says that it is {said}"
    if not contains(root, proof.head.size, proof.seq - 1, leaf_hash(proof.record.encode()), path):
        return "the record is not in this tree"
    return ""


class _Numbered(msgspec.Struct, frozen=True):
    seq: int


def _kept_key(home: Home, directory: Path) -> AuditKey:
    """The key of the home, with its public half beside the heads, where it stays when the key is another one."""
    key = audit_key(home)
    path = directory / f"{key.key_id[:32]}.pub"
    if not path.exists():
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(home.path)
        create_once(path, key.public.pem)
    return key
