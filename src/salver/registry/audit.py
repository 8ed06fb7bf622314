"""The audit of a home: its journal's signed tree heads, their copies outside of the database, and what they prove."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.registry.audit_keys import ROTATED, believed_keys, rotation
from salver.registry.key_changes import Rotated
from salver.security.access import Operation, Principal, require
from salver.security.keys import AUDIT_KEY, AuditKey, AuditPublicKey, audit_key, new_audit_pem
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal
from salver.storage.merkle import contains, leaf_hash
from salver.storage.snapshot import create_once, sync_directory
from salver.storage.tree_heads import HeadFile, TreeHead, signature_flaw
from salver.telemetry.logs import log_event

__all__ = ["Audit", "Inclusion", "proof_flaw"]

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
        self._home = home
        self._database = database
        self._kept: AuditKey | None = None
        self._rotating = threading.Lock()
        self.journal = Journal(database, clock, self._key)
        self._unsigned_since_s: float | None = None

    def _key(self) -> AuditKey:
        if self._kept is None:
            self._kept = _kept_key(self._home, self._directory)
        return self._kept

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

    def rotate(self, principal: Principal) -> Rotated:
        """Sign the journal with a new key from now on; both keys sign that it follows the old one.

        Raises PERMISSION_DENIED. A death between the record and the new key leaves the old one, which goes on.
        """
        require(principal, Operation.KEEP_KEYS)
        with self._rotating:
            self.seal()
            before, pem = self._key(), new_audit_pem()
            after = AuditKey.parse(pem)
            with self._database.begin() as connection:
                self.journal.append(
                    connection,
                    actor=principal.name,
                    action=ROTATED,
                    subject=after.key_id,
                    details=msgspec.structs.asdict(rotation(before, after)),
                    before=before.key_id,
                    after=after.key_id,
                )
            self._home.replace_secret(AUDIT_KEY, pem)
            self._kept = None
            self.seal()
        return Rotated(before.key_id, after.key_id)

    def verify(self, kept: Iterable[TreeHead] = (), pinned: Collection[AuditPublicKey] = ()) -> ChainCheck:
        """Check the whole journal against its heads here, in the file, and those `kept` elsewhere.

        Signatures count of this home's key or, where there are any, of the `pinned` ones, and of those they are linked
        to by rotations.
        """
        keys = self.keys(pinned)
        try:
            copied = self._file.read()
        except SalverError as error:
            log_event("heads_unreadable", level=logging.ERROR, problem=str(error))
            check = self.journal.verify(keys, kept)
            return ChainCheck.flawed(check.records, 1, error.message, check.heads) if check.ok else check
        return self.journal.verify(keys, (*copied, *kept))

    def keys(self, pinned: Collection[AuditPublicKey] = ()) -> Mapping[str, AuditPublicKey]:
        """The public keys whose heads are believed, by their fingerprints; see `verify`."""
        with self._database.read() as connection:
            return believed_keys(connection, pinned or [self._key().public])

    def prove(self, seq: int) -> Inclusion:
        """Prove that record `seq` is in the journal; NOT_FOUND where there is none. Reads the whole journal."""
        head = self.seal()
        if head is None or not 1 <= seq <= head.size:
            has = f"it has records 1 to {head.size}" if head else "it is empty"
            raise SalverError("NOT_FOUND", f"the journal has no record {seq}", has)
        record, path = self.journal.prove(seq, head.size)
        return Inclusion(seq, record, tuple(sibling.hex() for sibling in path), head)


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
    """The key of the home, with its public half beside the heads to be copied from there; nobody believes it there."""
    key = audit_key(home)
    path = directory / f"{key.key_id[:32]}.pub"
    if not path.exists():
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(home.path)
        create_once(path, key.public.pem)
    return key
