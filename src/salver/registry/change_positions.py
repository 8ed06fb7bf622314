"""How far each webhook has been told of changes: places in the journal, and the records it could not be told of.

Nothing is copied out of the journal. A webhook's position moves behind a record in the transaction that notes that it
was told, or given up; so whoever is killed tells a record once more, and none is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from salver.protocol.errors import SalverError
from salver.registry.webhooks import WebhookRecord, find_webhook, webhook_records
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.journal import Journal, JournalRecord, read_records, with_previous
from salver.storage.registry_schema import change_deliveries, change_positions
from salver.storage.schema import journal, journal_head

__all__ = ["ChangePositions", "Due", "Redelivered", "Undelivered", "WebhookChanges"]

_PENDING: Final = "pending"
"""The record at which a webhook stands, after a try that failed."""
_AGAIN: Final = "again"
"""A record that somebody wants told once more."""
_DEAD: Final = "dead"
_LOOKED_AT: Final = 10_000
"""Records that one look goes through, at most."""
_LAG: Final = 256
"""Records that do not concern a webhook are passed in steps of so many."""
_LONGEST_PAUSE_S: Final = 7200.0
"""A try that is due later than this was planned by a clock that has been set back since."""
_MOST_DEAD: Final = 10_000
"""Records that are kept as given up for one webhook; the oldest go first."""
_SHOWN: Final = 1000


class Undelivered(msgspec.Struct, frozen=True):
    """A record that a webhook has not been told of, though it was tried."""

    seq: int
    action: str
    subject: str
    attempts: int
    due_s: float
    """When it is tried next, or when it was given up."""
    note: str
    """What the last try met."""


class WebhookChanges(msgspec.Struct, frozen=True):
    """How far a webhook has been told."""

    webhook: str
    actions: tuple[str, ...]
    position: int
    """It was told of all that concerns it up to this record of the journal."""
    head: int
    """The newest record there is."""
    waiting: tuple[Undelivered, ...] = ()
    """What is tried again."""
    dead: tuple[Undelivered, ...] = ()
    """What was given up, the newest thousand."""


class Redelivered(msgspec.Struct, frozen=True):
    """What a webhook will be told of again."""

    webhook: str
    seqs: tuple[int, ...]
    """Of the records."""


class Due(msgspec.Struct, frozen=True):
    """What a webhook is to be told of now."""

    webhook: WebhookRecord
    record: JournalRecord
    attempts: int
    """That failed before."""
    again: bool
    """Whether it is behind the position: told again because somebody asked for it."""


class ChangePositions:
    """The positions in one database."""

    __slots__ = ("_database", "_journal")

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    def due(self, now_s: float, besides: Collection[str] = ()) -> tuple[Due, ...]:
        """What each webhook is to be told next, where that is due; `besides` are left out. Blocks."""
        with self._database.read() as connection:
            head = int(connection.execute(select(journal_head.c.seq)).scalar_one())
            found, passed = [], {}
            for webhook, position in _following(connection):
                if webhook.name in besides:
                    continue
                due, seen = _due(connection, webhook, position, head, now_s)
                if due is not None:
                    found.append(due)
                elif seen - position >= _LAG:
                    passed[webhook.name] = position, seen
        if passed:
            with self._database.begin() as connection:
                for name, (position, seen) in passed.items():
                    _move(connection, name, position, seen)
        return tuple(found)

    def told(self, due: Due) -> None:
        """Note that a webhook has heard of a record."""
        with self._database.begin() as connection:
            self._pass(connection, due)

    def failed(self, due: Due, note: str, due_s: float) -> None:
        """Note that a try failed, and when it is to be repeated. What comes behind it waits."""
        with self._database.begin() as connection:
            if _position(connection, due.webhook) is not None:
                state = _AGAIN if due.again else _PENDING
                _put(connection, due, {"state": state, "attempts": due.attempts + 1, "due_s": due_s, "note": note})

    def given_up(self, due: Due, note: str, now_s: float) -> None:
        """Note that no more tries are made; it can be redelivered."""
        with self._database.begin() as connection:
            if not self._pass(connection, due):
                return
            _put(connection, due, {"state": _DEAD, "attempts": due.attempts + 1, "due_s": now_s, "note": note})
            same = (change_deliveries.c.webhook == due.webhook.name) & (change_deliveries.c.state == _DEAD)
            seqs = select(change_deliveries.c.seq).where(same).order_by(change_deliveries.c.seq.desc())
            oldest = connection.execute(seqs.offset(_MOST_DEAD - 1).limit(1)).scalar_one_or_none()
            if oldest is not None:
                connection.execute(delete(change_deliveries).where(same, change_deliveries.c.seq < oldest))

    def _pass(self, connection: Connection, due: Due) -> bool:
        """Go behind a record; whether the webhook is still the one it was."""
        position = _position(connection, due.webhook)
        if position is None:
            return False
        connection.execute(delete(change_deliveries).where(_same(due)))
        if not due.again and position < due.record.seq:
            _move(connection, due.webhook.name, position, due.record.seq)
        return True

    def of(self, name: str) -> WebhookChanges:
        """How far one webhook has been told; NOT_FOUND."""
        with self._database.read() as connection:
            webhook = find_webhook(connection, name)
            head = int(connection.execute(select(journal_head.c.seq)).scalar_one())
            position = _position(connection, webhook)
            waiting = _undelivered(connection, name, (_PENDING, _AGAIN))
            dead = _undelivered(connection, name, (_DEAD,))
        return WebhookChanges(name, webhook.actions, head if position is None else position, head, waiting, dead)

    def redeliver(self, principal: Principal, name: str, seq: int | None = None) -> Redelivered:
        """Try again what was given up for a webhook, one record or all, out of turn; NOT_FOUND for none."""
        require(principal, Operation.OPERATE)
        with self._database.begin() as connection:
            find_webhook(connection, name)
            dead = (change_deliveries.c.webhook == name) & (change_deliveries.c.state == _DEAD)
            if seq is not None:
                dead &= change_deliveries.c.seq == seq
            seqs = tuple(
                connection.execute(select(change_deliveries.c.seq).where(dead).order_by(change_deliveries.c.seq))
                .scalars()
                .all()
            )
            if not seqs:
                what = "no record was given up" if seq is None else f"record {seq} was not given up"
                raise SalverError("NOT_FOUND", f"of webhook {name!r} {what}", f"list them: salver webhook dead {name}")
            connection.execute(update(change_deliveries).where(dead).values(state=_AGAIN, attempts=0, due_s=0.0))
            self._journal.append(
                connection,
                actor=principal.name,
                action="redeliver",
                subject=name,
                details={"records": len(seqs), "first": seqs[0], "last": seqs[-1]},
            )
        return Redelivered(name, seqs)


def _following(connection: Connection) -> list[tuple[WebhookRecord, int]]:
    """The webhooks that are told of changes, and where they stand."""
    positions: dict[str, int] = {
        row.webhook: row.seq for row in connection.execute(select(change_positions.c.webhook, change_positions.c.seq))
    }
    if not positions:
        return []
    return [(each, positions[each.name]) for each in webhook_records(connection) if each.name in positions]


def _due(
    connection: Connection, webhook: WebhookRecord, position: int, head: int, now_s: float
) -> tuple[Due | None, int]:
    """What a webhook is to be told of now, and up to where nothing else concerns it."""
    columns = change_deliveries.c
    waiting = select(columns.seq, columns.state, columns.attempts, columns.due_s).where(
        columns.webhook == webhook.name, columns.state.in_((_PENDING, _AGAIN))
    )
    pending = None
    for row in connection.execute(waiting.order_by(columns.seq)):
        if row.state == _PENDING:
            pending = row
        elif _is_due(row.due_s, now_s):
            record = _record(connection, row.seq)
            return Due(webhook, record, row.attempts, again=True), position
    if pending is not None:
        if not _is_due(pending.due_s, now_s):
            return None, position
        return Due(webhook, _record(connection, pending.seq), pending.attempts, again=False), position
    upto = min(position + _LOOKED_AT, head)
    statement = with_previous().where(journal.c.seq > position, journal.c.seq <= upto)
    if "*" not in webhook.actions:
        statement = statement.where(journal.c.action.in_(webhook.actions))
    found = read_records(connection, statement.order_by(journal.c.seq).limit(1))
    return (Due(webhook, found[0], 0, again=False) if found else None), upto


def _is_due(due_s: float, now_s: float) -> bool:
    return due_s <= now_s or due_s > now_s + _LONGEST_PAUSE_S


def _record(connection: Connection, seq: int) -> JournalRecord:
    return read_records(connection, with_previous().where(journal.c.seq == seq))[0]


def _position(connection: Connection, webhook: WebhookRecord) -> int | None:
    """Where a webhook stands; None for one that is not told of changes, or is not there any more."""
    present = [each.id for each in webhook_records(connection) if each.name == webhook.name]
    if present != [webhook.id]:
        return None
    query = select(change_positions.c.seq).where(change_positions.c.webhook == webhook.name)
    found: int | None = connection.execute(query).scalar_one_or_none()
    return found


def _move(connection: Connection, name: str, position: int, to: int) -> None:
    here = (change_positions.c.webhook == name) & (change_positions.c.seq == position)
    connection.execute(update(change_positions).where(here).values(seq=to))


def _same(due: Due) -> Any:
    return (change_deliveries.c.webhook == due.webhook.name) & (change_deliveries.c.seq == due.record.seq)


def _put(connection: Connection, due: Due, values: dict[str, Any]) -> None:
    if connection.execute(update(change_deliveries).where(_same(due)).values(values)).rowcount == 0:
        given = {"webhook": due.webhook.name, "seq": due.record.seq}
        connection.execute(insert(change_deliveries).values(given | values))


def _undelivered(connection: Connection, name: str, states: tuple[str, ...]) -> tuple[Undelivered, ...]:
    columns = change_deliveries.c
    query = (
        select(columns.seq, journal.c.action, journal.c.subject, columns.attempts, columns.due_s, columns.note)
        .join_from(change_deliveries, journal, journal.c.seq == columns.seq)
        .where(columns.webhook == name, columns.state.in_(states))
        .order_by(columns.seq.desc())
        .limit(_SHOWN)
    )
    return tuple(Undelivered(**row._mapping) for row in connection.execute(query))[::-1]
