"""The audit journal: who changed what, as a chain of hashes.

Each record's hash covers the hash before it, so an edit, a removal or a swap breaks the chain at
that place; the head beside the table tells that the last records are still there. Whoever can
rewrite the whole database can also rewrite the whole chain: compare `Journal.head` with a copy
kept elsewhere to see that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, select, update

from salver.clock import Clock
from salver.storage.database import Database
from salver.storage.schema import journal, journal_head

__all__ = ["ChainCheck", "Journal", "JournalRecord", "canonical_json"]

_PAGE: Final = 1000


class JournalRecord(msgspec.Struct, frozen=True):
    """One change: `at_s` is wall time, `details` a JSON object."""

    seq: int
    at_s: float
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    prev_hash: str
    hash: str


class ChainCheck(msgspec.Struct, frozen=True):
    """What a walk over the chain found: all `records` sound, or the first place that is not."""

    records: int
    bad_seq: int | None = None
    reason: str = ""


def canonical_json(value: object) -> str:
    """JSON in one fixed form: keys sorted, no spaces; raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def record_hash(record: JournalRecord) -> str:
    """SHA-256 over the previous hash (32 bytes) and the canonical JSON of the record without hashes."""
    fields = {
        "seq": record.seq,
        "at_s": record.at_s,
        "actor": record.actor,
        "action": record.action,
        "subject": record.subject,
        "details": record.details,
    }
    return hashlib.sha256(bytes.fromhex(record.prev_hash) + canonical_json(fields).encode()).hexdigest()


class Journal:
    """The journal of one database."""

    __slots__ = ("_clock", "_database")

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def append(
        self, connection: Connection, *, actor: str, action: str, subject: str, details: Mapping[str, Any]
    ) -> JournalRecord:
        """Append a record in the transaction of the change that it records: both happen or neither.

        REQUIRES a connection from `Database.begin` and `details` made of JSON values.
        """
        seq, prev_hash = connection.execute(select(journal_head.c.seq, journal_head.c.hash)).one()
        open_record = JournalRecord(
            seq + 1, self._clock.wall_s(), actor, action, subject, dict(details), prev_hash, hash=""
        )
        record = msgspec.structs.replace(open_record, hash=record_hash(open_record))
        row = msgspec.structs.asdict(record) | {"details": canonical_json(record.details)}
        connection.execute(journal.insert().values(row))
        connection.execute(update(journal_head).values(seq=record.seq, hash=record.hash))
        return record

    def head(self) -> tuple[int, str]:
        """The last sequence number and its hash: 0 and zeros for an empty journal."""
        with self._database.read() as connection:
            seq, last_hash = connection.execute(select(journal_head.c.seq, journal_head.c.hash)).one()
        return seq, last_hash

    def records(self, limit: int = 100, after: int = 0) -> tuple[JournalRecord, ...]:
        """At most `limit` records in order, beginning behind sequence number `after`."""
        with self._database.read() as connection:
            rows = _rows(connection, after, limit)
        return tuple(_record(row) for row in rows)

    def verify(self) -> ChainCheck:
        """Walk the whole chain and name the first record that was edited, removed or moved."""
        with self._database.read() as connection:
            head_seq, head_hash = connection.execute(select(journal_head.c.seq, journal_head.c.hash)).one()
            seq, last_hash = 0, "0" * 64
            while rows := _rows(connection, seq, _PAGE):
                for row in rows:
                    reason = _flaw(row, seq + 1, last_hash)
                    if reason:
                        return ChainCheck(seq, seq + 1, reason)
                    seq, last_hash = row.seq, row.hash
        if seq != head_seq:
            return ChainCheck(seq, min(seq, head_seq) + 1, f"the journal ends at {seq}; its head says {head_seq}")
        if last_hash != head_hash:
            return ChainCheck(seq, seq, "the head has another hash")
        return ChainCheck(seq)


def _rows(connection: Connection, after: int, limit: int) -> list[Row[Any]]:
    query = select(journal).where(journal.c.seq > after).order_by(journal.c.seq).limit(limit)
    return list(connection.execute(query))


def _record(row: Row[Any]) -> JournalRecord:
    fields = dict(row._mapping)
    return JournalRecord(**fields | {"details": json.loads(row.details)})


def _flaw(row: Row[Any], seq: int, prev_hash: str) -> str:
    if row.seq != seq:
        return f"record {seq} is missing"
    if row.prev_hash != prev_hash:
        return "the record does not continue the one before it"
    try:
        record = _record(row)
        sound = canonical_json(record.details) == row.details and record_hash(record) == row.hash
    except (ValueError, TypeError):
        sound = False
    return "" if sound else "the record was edited"
