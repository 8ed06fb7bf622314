"""One record of the audit journal: its fields, its canonical bytes and their hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["NO_HASH", "JournalRecord", "canonical_json", "canonical_record", "chain_hash", "digest_of", "parse_record"]

NO_HASH: Final = "0" * 64
"""What stands in the place of the hash before the first record."""


class JournalRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change: `at_s` is wall time, `details` a JSON object."""

    seq: int
    at_s: float
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    prev_hash: str
    hash: str
    why: str = ""
    request_id: str = ""
    before: str = ""
    """SHA-256 of the canonical JSON of what was changed, as it was; empty where there was nothing."""
    after: str = ""
    """The same of what it became."""


def canonical_json(value: object) -> str:
    """JSON in one fixed form: keys sorted, no spaces; raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of a structure; empty for None."""
    return "" if value is None else hashlib.sha256(canonical_json(msgspec.to_builtins(value)).encode()).hexdigest()


def canonical_record(record: JournalRecord) -> str:
    """What the hashes of a record are over: all its fields but its hashes, and of those added later what is there."""
    fields: dict[str, Any] = {
        "seq": record.seq,
        "at_s": record.at_s,
        "actor": record.actor,
        "action": record.action,
        "subject": record.subject,
        "details": record.details,
    }
    for name in ("why", "request_id", "before", "after"):
        if getattr(record, name):
            fields[name] = getattr(record, name)
    return canonical_json(fields)


def chain_hash(prev_hash: str, canonical: str) -> str:
    """SHA-256 over the previous hash (32 bytes) and the canonical bytes of a record."""
    return hashlib.sha256(bytes.fromhex(prev_hash) + canonical.encode()).hexdigest()


def parse_record(canonical: str, prev_hash: str, own_hash: str) -> JournalRecord:
    """The record with these canonical bytes; raises CORRUPT_ARTIFACT for what is none."""
    try:
        return JournalRecord(**json.loads(canonical), prev_hash=prev_hash, hash=own_hash)
    except (ValueError, TypeError) as error:
        raise SalverError(
            "CORRUPT_ARTIFACT",
            "a record of the journal cannot be read",
            "`salver audit verify` says which; restore the database from a backup",
        ) from error
