"""The audit journal: who changed what and why, as a chain of hashes.

Each row holds the canonical bytes of its record, and its hash is over the hash before it and these bytes; so an edit,
a removal or a swap breaks the chain at that place, and the head beside the table tells that the last records are
still there. Whoever can rewrite the whole database can also rewrite the whole chain, but not the signed tree heads
(`salver.storage.tree_heads`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, func, or_, select, update

from salver.clock import Clock
from salver.protocol.journal_actions import JournalAction
from salver.storage.database import Database
from salver.storage.journal_record import (
    NO_HASH,
    JournalRecord,
    canonical_json,
    canonical_record,
    chain_hash,
    digest_of,
    parse_record,
)
from salver.storage.merkle import Peaks, Prover, leaf_hash
from salver.storage.schema import journal, journal_head
from salver.storage.tree_heads import HeadKey, HeadReader, TreeHead, read_heads, sign_head
from salver.storage.verification import ChainCheck, verify_journal

__all__ = [
    "MOST_RECORDS",
    "SIGNED_EACH",
    "ChainCheck",
    "Changes",
    "Journal",
    "JournalQuery",
    "JournalRecord",
    "Occasion",
    "about",
    "canonical_json",
    "chain_hash",
    "digest_of",
    "journal_position",
    "occasion",
    "read_records",
    "with_previous",
]

SIGNED_EACH: Final = 256
"""How many records lie between two tree heads at most."""
_LOOKED_AT: Final = 10_000
"""Records that one call of `changes` looks at, at most."""
MOST_RECORDS: Final = 1000
"""Records that one query lists, at most."""
_PAGE: Final = 5000


class Occasion(NamedTuple):
    """On what occasion something is changed: the request that asks for it, and why."""

    request_id: str = ""
    why: str = ""


_OCCASION: Final[ContextVar[Occasion]] = ContextVar("salver_occasion", default=Occasion())  # noqa: B039 - a tuple


@contextlib.contextmanager
def occasion(request_id: str = "", why: str = "") -> Iterator[None]:
    """Within the block, records of this thread or task say on what occasion they were made."""
    before = _OCCASION.get()
    token = _OCCASION.set(Occasion(request_id or before.request_id, why or before.why))
    try:
        yield
    finally:
        _OCCASION.reset(token)


class JournalQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which records to list. Of what is not given all fit."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_RECORDS)] = 100
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """Only records behind this number."""
    before: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """Only records in front of this number."""
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    """A subject, or a model for all its versions."""
    since_s: float | None = None
    until_s: float | None = None
    last: bool = False
    """The newest first."""


class Changes(msgspec.Struct, frozen=True):
    """What has happened behind a record."""

    records: tuple[JournalRecord, ...]
    position: int
    """Up to which record it was looked: where to go on."""
    head: int
    """The newest record there is."""


class Journal:
    """The journal of one database. With a `key`, which is asked for when needed, it signs what it comes to."""

    __slots__ = ("_clock", "_database", "_key")

    def __init__(self, database: Database, clock: Clock, key: Callable[[], HeadKey] | None = None) -> None:
        self._database = database
        self._clock = clock
        self._key = key

    def append(
        self,
        connection: Connection,
        *,
        actor: str,
        action: JournalAction,
        subject: str,
        details: Mapping[str, Any],
        before: object = None,
        after: object = None,
    ) -> JournalRecord:
        """Append a record in the transaction of the change that it records: both happen or neither.

        `before` and `after` are what was changed, for their digests. REQUIRES a connection from `Database.begin` and
        `details` made of JSON values.
        """
        peaks, prev_hash = _head(connection)
        now = _OCCASION.get()
        open_record = JournalRecord(
            peaks.size + 1,
            self._clock.wall_s(),
            actor,
            action,
            subject,
            dict(details),
            prev_hash,
            hash="",
            why=now.why,
            request_id=now.request_id,
            before=digest_of(before),
            after=digest_of(after),
        )
        canonical = canonical_record(open_record)
        record = msgspec.structs.replace(open_record, hash=chain_hash(prev_hash, canonical))
        peaks.add(leaf_hash(canonical.encode()))
        row = {name: getattr(record, name) for name in ("seq", "at_s", "actor", "action", "subject", "hash")}
        connection.execute(journal.insert().values(row | {"record": canonical}))
        connection.execute(update(journal_head).values(seq=record.seq, hash=record.hash, peaks=peaks.text))
        if self._key is not None and record.seq % SIGNED_EACH == 0:
            sign_head(connection, self._key(), peaks.size, peaks.root, record.at_s)
        return record

    def head(self) -> tuple[int, str]:
        """The last sequence number and its hash: 0 and zeros for an empty journal."""
        with self._database.read() as connection:
            seq, last_hash = connection.execute(select(journal_head.c.seq, journal_head.c.hash)).one()
        return seq, last_hash

    def sign(self) -> TreeHead | None:
        """Sign what the journal comes to now, if it is not signed yet; return its head, None for an empty journal.

        REQUIRES a key.
        """
        assert self._key is not None
        key = self._key()
        with self._database.begin() as connection:
            peaks, _ = _head(connection)
            newest = next(iter(read_heads(connection, last=1)), None)
            if peaks.size == 0 or (newest is not None and newest.size == peaks.size):
                return newest
            return sign_head(connection, key, peaks.size, peaks.root, self._clock.wall_s())

    def unsigned(self) -> int:
        """How many records there are behind the newest tree head."""
        with self._database.read() as connection:
            seq = connection.execute(select(journal_head.c.seq)).scalar_one()
            newest = next(iter(read_heads(connection, last=1)), None)
        return int(seq) - (newest.size if newest else 0)

    def heads(self, after: int | None = None, last: int | None = None) -> tuple[TreeHead, ...]:
        """See `salver.storage.tree_heads.read_heads`."""
        with self._database.read() as connection:
            return read_heads(connection, after, last)

    def records(self, limit: int = 100, after: int = 0) -> tuple[JournalRecord, ...]:
        """At most `limit` records in order, beginning behind sequence number `after`."""
        return self.find(JournalQuery(limit, after))

    def find(self, query: JournalQuery) -> tuple[JournalRecord, ...]:
        """The records that `query` asks for."""
        statement = _where(with_previous(), query)
        order = journal.c.seq.desc() if query.last else journal.c.seq
        with self._database.read() as connection:
            return read_records(connection, statement.order_by(order).limit(query.limit))

    def changes(
        self, after: int, limit: int = 100, actions: Collection[str] = (), subjects: Collection[str] = ()
    ) -> Changes:
        """What happened behind record `after`, in order; of `actions` or `subjects` that are not given all fit.

        For one who follows the journal: ask again from `position` on, at once while it is below `head`. One call
        looks at a bounded number of records, whatever it is asked for.
        """
        with self._database.read() as connection:
            head = int(connection.execute(select(journal_head.c.seq)).scalar_one())
            upto = min(after + _LOOKED_AT, head)
            statement = with_previous().where(journal.c.seq > after, journal.c.seq <= upto)
            if actions:
                statement = statement.where(journal.c.action.in_(actions))
            if subjects:
                statement = statement.where(or_(*map(about, subjects)))
            found = read_records(connection, statement.order_by(journal.c.seq).limit(limit))
        return Changes(found, found[-1].seq if len(found) == limit else max(upto, after), head)

    def verify(self, keys: Mapping[str, HeadReader] | None = None, kept: Iterable[TreeHead] = ()) -> ChainCheck:
        """See `verify_journal`."""
        with self._database.read() as connection:
            return verify_journal(connection, keys, kept)

    def prove(self, seq: int, size: int) -> tuple[str, tuple[bytes, ...]]:
        """The canonical bytes of record `seq`, and that it is among the first `size`: see `merkle.contains`.

        REQUIRES 1 <= `seq` <= `size` <= the number of records. Reads all of them.
        """
        prover = Prover(seq - 1)
        wanted = ""
        with self._database.read() as connection:
            for start in range(0, size, _PAGE):
                query = (
                    select(journal.c.seq, journal.c.record)
                    .where(journal.c.seq > start, journal.c.seq <= min(start + _PAGE, size))
                    .order_by(journal.c.seq)
                )
                for at, canonical in connection.execute(query):
                    prover.add(leaf_hash(canonical.encode()))
                    if at == seq:
                        wanted = canonical
        return wanted, prover.path()


def journal_position(connection: Connection) -> int:
    """The number of the newest record: while it stays, nothing has changed."""
    return int(connection.execute(select(journal_head.c.seq)).scalar_one())


def read_records(connection: Connection, statement: Select[Any]) -> tuple[JournalRecord, ...]:
    """The records of a statement made from `with_previous`."""
    return tuple(parse_record(record, prev, own) for record, prev, own in connection.execute(statement))


def _head(connection: Connection) -> tuple[Peaks, str]:
    columns = journal_head.c
    seq, last_hash, peaks = connection.execute(select(columns.seq, columns.hash, columns.peaks)).one()
    return Peaks.parse(seq, peaks), last_hash


def with_previous() -> Select[Any]:
    """The canonical bytes of records, the hashes before them and their own."""
    previous = journal.alias("previous")
    return select(
        journal.c.record, func.coalesce(previous.c.hash, NO_HASH).label("prev_hash"), journal.c.hash
    ).select_from(journal.outerjoin(previous, previous.c.seq == journal.c.seq - 1))


def _where(statement: Select[Any], query: JournalQuery) -> Select[Any]:
    columns = journal.c
    statement = statement.where(columns.seq > query.after)
    if query.before is not None:
        statement = statement.where(columns.seq < query.before)
    if query.actor is not None:
        statement = statement.where(columns.actor == query.actor)
    if query.action is not None:
        statement = statement.where(columns.action == query.action)
    if query.subject is not None:
        statement = statement.where(about(query.subject))
    if query.since_s is not None:
        statement = statement.where(columns.at_s >= query.since_s)
    if query.until_s is not None:
        statement = statement.where(columns.at_s < query.until_s)
    return statement


def about(subject: str) -> Any:
    """The condition that a record is about a subject or, of a model, about one of its versions."""
    versions = f"{subject}@"
    return (journal.c.subject == subject) | journal.c.subject.startswith(versions, autoescape=True)
