"""Verification of the journal: that no record was changed, removed, added or moved, and where it was if it was.

One pass over the records in big pages recomputes both chains, that of the hashes in the rows and the tree under the
signed heads, from the bytes that the rows hold; nothing is encoded again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from salver.storage.journal_record import NO_HASH
from salver.storage.merkle import Peaks, leaf_hash
from salver.storage.schema import journal, journal_head
from salver.storage.tree_heads import HeadReader, TreeHead, read_heads, signature_flaw

__all__ = ["UNSIGNED", "ChainCheck", "verify_journal"]

_PAGE: Final = 5000
_EDITED: Final = "the record was edited"
UNSIGNED: Final = "there is no signed tree head to compare with, so a journal that was written anew would look the same"
"""Of a journal that is whole by itself."""


class ChainCheck(msgspec.Struct, frozen=True):
    """What a walk over the journal found: all `records` sound, or the first place that is not."""

    ok: bool
    records: int
    """How many records from the first on are sound."""
    heads: int = 0
    """How many different signed tree heads were compared with them."""
    bad_seq: int | None = None
    reason: str = ""
    """Why it is not whole, or `UNSIGNED`."""

    @classmethod
    def sound(cls, records: int, heads: int = 0) -> ChainCheck:
        """Nothing was found; without a head there is little to find, which is said."""
        return cls(True, records, heads, reason="" if heads or not records else UNSIGNED)

    @classmethod
    def flawed(cls, records: int, bad_seq: int, reason: str, heads: int = 0) -> ChainCheck:
        """Record `bad_seq` is not what it was."""
        return cls(False, records, heads, bad_seq, reason)


class _Stored(msgspec.Struct, frozen=True):
    """What of the canonical bytes is repeated in columns."""

    seq: int
    at_s: float
    actor: str
    action: str
    subject: str


class _FlawError(Exception):
    """The journal is not whole at record `seq`."""

    def __init__(self, seq: int, reason: str) -> None:
        self.seq = seq
        self.reason = reason
        super().__init__(reason)


def verify_journal(
    connection: Connection, keys: Mapping[str, HeadReader] | None = None, kept: Iterable[TreeHead] = ()
) -> ChainCheck:
    """Walk the whole journal and name the first record that was edited, removed, added or moved.

    Compares it with all signed heads in the database and with those `kept` elsewhere, whose signatures are checked
    against `keys`, by their fingerprints; without `keys` signatures are taken for granted. REQUIRES a connection from
    `Database.read`.
    """
    walk = _Walk()
    try:
        heads = _heads(connection, kept)
        walk.heads = _Heads(heads, keys)
        _check_beginning(connection)
        walk.over(connection)
        _check_end(connection, walk)
        walk.heads.check_end(walk.peaks.size)
    except _FlawError as flaw:
        return ChainCheck.flawed(min(walk.peaks.size, max(flaw.seq - 1, 0)), flaw.seq, flaw.reason, len(walk.heads))
    return ChainCheck.sound(walk.peaks.size, len(walk.heads))


class _Heads:
    """The heads by the number of their records."""

    def __init__(self, heads: Sequence[TreeHead] = (), keys: Mapping[str, HeadReader] | None = None) -> None:
        self._keys = keys
        self._by_size: dict[int, list[TreeHead]] = defaultdict(list)
        different = dict.fromkeys(heads)
        self._count = len(different)
        self._agreed = 0
        for head in different:
            self._by_size[head.size].append(head)

    def __len__(self) -> int:
        return self._count

    def check(self, peaks: Peaks) -> None:
        """Compare what has been walked with the heads over it."""
        heads = self._by_size.get(peaks.size)
        if not heads:
            return
        root = peaks.root.hex()
        for head in heads:
            flaw = "" if self._keys is None else signature_flaw(head, self._keys)
            if flaw:
                raise _FlawError(peaks.size, f"the tree head over {head.size} records {flaw}")
            if head.root != root:
                # Which of them it is, nothing tells any more: their own chain was made to fit.
                first = self._agreed + 1
                those = f"record {first}" if first == peaks.size else f"one of the records {first} to {peaks.size}"
                raise _FlawError(first, f"{those} is not what was there when the tree head was signed")
        self._agreed = peaks.size

    def check_end(self, records: int) -> None:
        """Raise for a head over more records than there are, or over a number that none can have."""
        for size, (head, *_) in sorted(self._by_size.items()):
            if size < 0:
                raise _FlawError(1, f"there is a tree head over {size} records")
            if size > records:
                flaw = "" if self._keys is None else signature_flaw(head, self._keys)
                said = f"a tree head that {flaw}" if flaw else "a signed tree head"
                raise _FlawError(records + 1, f"the journal ends at {records}; {said} says {size}")


class _Walk:
    """How far the records are sound, and what they come to."""

    def __init__(self) -> None:
        self.peaks = Peaks()
        self.hash = bytes.fromhex(NO_HASH)
        self.heads = _Heads()
        self._decode = msgspec.json.Decoder(_Stored).decode

    def over(self, connection: Connection) -> None:
        """Walk to the end, or raise at the first flaw."""
        self.heads.check(self.peaks)
        while rows := _page(connection, self.peaks.size):
            for row in rows:
                self._step(row)

    def _step(self, row: Any) -> None:
        seq, at_s, actor, action, subject, text, own_hash = row
        peaks = self.peaks
        expected = peaks.size + 1
        if seq != expected:
            raise _FlawError(expected, f"record {expected} is missing")
        try:
            canonical = text.encode()
        except (AttributeError, UnicodeEncodeError):
            raise _FlawError(seq, _EDITED) from None
        digest = hashlib.sha256(self.hash + canonical).digest()
        if digest.hex() != own_hash:
            raise _FlawError(seq, f"{_EDITED}, or does not continue the one before it")
        try:
            stored = self._decode(canonical)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _FlawError(seq, _EDITED) from None
        if (
            stored.seq != seq
            or stored.at_s != at_s
            or stored.actor != actor
            or stored.action != action
            or stored.subject != subject
        ):
            raise _FlawError(seq, f"{_EDITED}: its columns say something else than it")
        peaks.add(leaf_hash(canonical))
        self.hash = digest
        self.heads.check(peaks)


def _heads(connection: Connection, kept: Iterable[TreeHead]) -> list[TreeHead]:
    try:
        return [*read_heads(connection), *kept]
    except DBAPIError as error:
        if not _is_unreadable(error):
            raise
        raise _FlawError(1, "a tree head was edited: it cannot be read") from error


def _check_beginning(connection: Connection) -> None:
    first = connection.execute(select(func.min(journal.c.seq))).scalar_one()
    if first is not None and first < 1:
        raise _FlawError(first, f"there is a record {first} before the first")


def _check_end(connection: Connection, walk: _Walk) -> None:
    """Compare what was walked with the head beside the table."""
    records = walk.peaks.size
    last = max(records, 1)
    try:
        rows = list(connection.execute(select(journal_head.c.seq, journal_head.c.hash, journal_head.c.peaks)))
    except DBAPIError as error:
        if not _is_unreadable(error):
            raise
        raise _FlawError(last, "the head was edited: it cannot be read") from error
    if len(rows) != 1:
        raise _FlawError(last, "the journal has lost its head")
    seq, own_hash, peaks = rows[0]
    if seq != records:
        at = min(records, seq) + 1 if isinstance(seq, int) and seq >= 0 else last
        raise _FlawError(at, f"the journal ends at {records}; its head says {seq}")
    if own_hash != walk.hash.hex():
        raise _FlawError(last, "the head has another hash")
    if peaks != walk.peaks.text:
        raise _FlawError(last, "the head has other peaks")


def _page(connection: Connection, after: int) -> list[Any]:
    """The next records in order; where one of them cannot be read at all, those before it."""
    try:
        return _rows(connection, after, _PAGE)
    except (DBAPIError, sqlite3.DatabaseError) as error:
        if not _is_unreadable(error):
            raise
    found: list[Any] = []
    while len(found) < _PAGE:
        try:
            rows = _rows(connection, found[-1][0] if found else after, 1)
        except (DBAPIError, sqlite3.DatabaseError) as error:
            if found:
                break
            raise _FlawError(after + 1, f"{_EDITED}: it cannot be read") from error
        if not rows:
            break
        found += rows
    return found


def _rows(connection: Connection, after: int, limit: int) -> list[Any]:
    columns = journal.c
    query = (
        select(
            columns.seq,
            columns.at_s,
            columns.actor,
            columns.action,
            columns.subject,
            columns.record,
            columns.hash,
        )
        .where(columns.seq > after)
        .order_by(columns.seq)
        .limit(limit)
    )
    with connection.execute(query) as result:
        # From the driver as they are: SQLAlchemy's rows take as long again, and its types change nothing of these.
        assert result.cursor is not None
        return list(result.cursor.fetchall())


def _is_unreadable(error: DBAPIError | sqlite3.DatabaseError) -> bool:
    """Whether SQLite found text that is no UTF-8, or pages that are none; it says so only while reading."""
    plain = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(plain, sqlite3.DatabaseError) and (
        "decode" in str(plain) or getattr(plain, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT
    )
