"""What served when, and in which stage it was: replayed from the journal and from nothing else.

The order is that of the records and never that of their times: where the clock of the machine was set back, what a
moment means is said beside the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import Connection, func, select

from salver.clock import DAY_S
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import DEPLOYING
from salver.registry.stage_history import Stood, stood
from salver.storage.database import Database
from salver.storage.journal import JournalRecord, about, read_records, with_previous
from salver.storage.registry_schema import usage
from salver.storage.schema import journal

__all__ = ["ClockJump", "Event", "History", "Served", "history_of", "served_of"]

_MOST_RECORDS: Final = 100_000
_NAMING: Final = frozenset({"endpoint", "model", "version", "generation"})


class Served(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version that an endpoint served for some time."""

    endpoint: str
    model: str
    version: str
    digest: str
    """That of the version; empty where the journal does not say it."""
    generation: int
    settings: dict[str, Any]
    """Those that were not the default."""
    deployed_by: str
    since_s: float
    seq: int
    """The record that began it."""
    why: str = ""
    request_id: str = ""
    until_s: float | None = None
    """None while it still serves."""
    until_seq: int | None = None
    ended: str = ""
    """The action that ended it."""
    ended_by: str = ""
    requests: int | None = None
    """Requests counted for it on the days on which it served; None where nothing was counted."""


Spanning = TypeVar("Spanning", Served, Stood)


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a model or an endpoint."""

    seq: int
    at_s: float
    actor: str
    action: str
    subject: str
    why: str = ""
    request_id: str = ""
    reference: str = ""
    """NAME@VERSION that it is about."""
    changes: dict[str, tuple[Any, Any]] = {}
    """What it changed, by name: before and after; None for what was not there or is the default."""
    details: dict[str, Any] = {}
    """What else the record says, of records that are no deployments."""


class ClockJump(msgspec.Struct, frozen=True):
    """Record `seq` has an earlier time than one before it."""

    seq: int
    before_s: float
    """The latest time of the records before it."""
    at_s: float


class History(msgspec.Struct, frozen=True):
    """The answer: what served, and without a moment everything that happened."""

    name: str
    served: tuple[Served, ...]
    """In the order in which it began."""
    stages: tuple[Stood, ...] = ()
    """Of the versions of a model, and of what an endpoint served; in the order in which they began."""
    events: tuple[Event, ...] = ()
    jumps: tuple[ClockJump, ...] = ()
    """Where times went backwards; with a moment, only what makes that one ambiguous."""


def history_of(
    database: Database,
    name: str,
    endpoint: str | None = None,
    since_s: float | None = None,
    until_s: float | None = None,
) -> History:
    """The history of a model or an endpoint called `name`; of an endpoint of a model with `endpoint`.

    With `since_s` only what served, or was in a stage, at some time from then to `until_s` or, without that, at that
    very moment. Raises NOT_FOUND for a name that no record mentions, INVALID_PARAMETER for one that a hundred thousand
    records mention.
    """
    with database.read() as connection:
        records = _records(connection, name, endpoint)
        if not records:
            what = f"{name[:140]!r}" + (f" on endpoint {endpoint[:140]!r}" if endpoint else "")
            raise SalverError("NOT_FOUND", f"the journal says nothing of {what}", "give a model or an endpoint")
        served = _replay(records, name, _digests(connection, records))
        jumps = _jumps(records)
        span = None if since_s is None else (since_s, since_s if until_s is None else until_s)
        served = _within(served, records, span)
        stages = tuple(_stages(connection, name, endpoint, records, served, span))
        served = [_with_requests(connection, each) for each in served]
        if since_s is None:
            return History(name, tuple(served), stages, tuple(_events(records, name)), jumps)
        ambiguous = tuple(jump for jump in jumps if jump.at_s <= since_s < jump.before_s)
        return History(name, tuple(served), stages, (), ambiguous)


def served_of(connection: Connection, model: str) -> tuple[Served, ...]:
    """What endpoints served of a model, now and before, in a transaction that is already open; nothing for none."""
    records = _records(connection, model, None, deployments_only=True)
    served = _replay(records, model, _digests(connection, records))
    return tuple(_with_requests(connection, each) for each in served if each.model == model)


def _records(
    connection: Connection, name: str, endpoint: str | None, *, deployments_only: bool = False
) -> list[JournalRecord]:
    """All deployments that concern `name`, and whatever else is about it."""
    deploying = journal.c.action.in_(sorted(DEPLOYING))
    # Which of them name the model only in passing, is seen when they are read.
    wanted = deploying & ((journal.c.subject == name) | journal.c.record.contains(f'"model":"{name}"', autoescape=True))
    if endpoint is not None:
        wanted &= journal.c.subject == endpoint
    if not deployments_only:
        wanted |= ~deploying & about(name)
    statement = with_previous().where(wanted).order_by(journal.c.seq)
    found = read_records(connection, statement.limit(_MOST_RECORDS + 1))
    if len(found) > _MOST_RECORDS:
        raise SalverError(
            "INVALID_PARAMETER",
            f"more than {_MOST_RECORDS} records are about {name[:140]!r}",
            "ask for one endpoint with --endpoint",
        )
    return [each for each in found if not _deploys(each) or _concerns(each, name)]


def _stages(
    connection: Connection,
    name: str,
    endpoint: str | None,
    records: Sequence[JournalRecord],
    served: Iterable[Served],
    span: tuple[float, float] | None,
) -> Iterator[Stood]:
    """The stages of the versions of a model that has this name, and of what was served of others."""
    if endpoint is None:
        yield from _within(stood(records, name), records, span)
    versions = {(each.model, each.version) for each in served if endpoint or each.model != name}
    for model in sorted({model for model, _ in versions}):
        theirs = _records(connection, model, None)
        yield from (each for each in _within(stood(theirs, model), theirs, span) if (model, each.version) in versions)


def _within(
    spans: Iterable[Spanning], records: Sequence[JournalRecord], span: tuple[float, float] | None
) -> list[Spanning]:
    """Those of the spans that were at some time of a longer one, by the order of their records; all without one."""
    if span is None:
        return list(spans)
    first, last = (_position(records, at_s) for at_s in span)
    return [each for each in spans if each.seq <= last and (each.until_seq is None or each.until_seq > first)]


def _deploys(record: JournalRecord) -> bool:
    return record.action in DEPLOYING


def _spec(record: JournalRecord, side: str) -> dict[str, Any]:
    found = record.details.get(side)
    return found if isinstance(found, dict) else {}


def _concerns(record: JournalRecord, name: str) -> bool:
    return name in (record.subject, _spec(record, "before").get("model"), _spec(record, "after").get("model"))


def _replay(records: Iterable[JournalRecord], name: str, digests: dict[str, str]) -> list[Served]:
    """What each deployment served, until the next one of its endpoint."""
    served: list[Served] = []
    open_at: dict[str, int] = {}
    for record in records:
        if not _deploys(record):
            continue
        index = open_at.pop(record.subject, None)
        if index is not None:
            served[index] = msgspec.structs.replace(
                served[index],
                until_s=record.at_s,
                until_seq=record.seq,
                ended=record.action,
                ended_by=record.actor,
            )
        after = _spec(record, "after")
        if after and name in (record.subject, after.get("model")):
            open_at[record.subject] = len(served)
            served.append(_served(record, after, digests))
    return served


def _served(record: JournalRecord, spec: dict[str, Any], digests: dict[str, str]) -> Served:
    reference = f"{spec['model']}@{spec['version']}"
    return Served(
        endpoint=record.subject,
        model=spec["model"],
        version=spec["version"],
        digest=record.details.get("digest") or digests.get(reference, ""),
        generation=spec.get("generation", 0),
        settings={key: value for key, value in spec.items() if key not in _NAMING},
        deployed_by=record.actor,
        since_s=record.at_s,
        seq=record.seq,
        why=record.why,
        request_id=record.request_id,
    )


def _digests(connection: Connection, records: Iterable[JournalRecord]) -> dict[str, str]:
    """Digests by NAME@VERSION, from registrations, for deployments of a Salver that did not write them down."""
    missing = {
        f"{spec['model']}@{spec['version']}"
        for record in records
        if _deploys(record) and "digest" not in record.details and (spec := _spec(record, "after"))
    }
    if not missing:
        return {}
    statement = with_previous().where(journal.c.action == "register", journal.c.subject.in_(sorted(missing)))
    return {record.subject: record.details.get("digest", "") for record in read_records(connection, statement)}


def _events(records: Iterable[JournalRecord], name: str) -> Iterable[Event]:
    for record in records:
        before, after = _spec(record, "before"), _spec(record, "after")
        reference, changes, details = "", {}, {}
        if _deploys(record):
            of = after or before
            reference = f"{of.get('model')}@{of.get('version')}"
            changes = {
                key: (before.get(key), after.get(key))
                for key in sorted({*before, *after})
                if before and after and key not in ("generation", "endpoint") and before.get(key) != after.get(key)
            }
        else:
            reference = record.subject if record.subject.startswith(f"{name}@") else ""
            details = record.details
        yield Event(
            record.seq,
            record.at_s,
            record.actor,
            record.action,
            record.subject,
            record.why,
            record.request_id,
            reference,
            changes,
            details,
        )


def _jumps(records: Iterable[JournalRecord]) -> tuple[ClockJump, ...]:
    latest_s = float("-inf")
    found = []
    for record in records:
        if record.at_s < latest_s:
            found.append(ClockJump(record.seq, latest_s, record.at_s))
        latest_s = max(latest_s, record.at_s)
    return tuple(found)


def _position(records: Sequence[JournalRecord], at_s: float) -> int:
    """The last record in the order of the journal that was not later than `at_s`; 0 for none."""
    return next((record.seq for record in reversed(records) if record.at_s <= at_s), 0)


def _with_requests(connection: Connection, served: Served) -> Served:
    query = select(func.sum(usage.c.requests)).where(
        usage.c.model == served.model,
        usage.c.version == served.version,
        usage.c.endpoint == served.endpoint,
        usage.c.day >= int(served.since_s // DAY_S),
    )
    if served.until_s is not None:
        query = query.where(usage.c.day <= int(served.until_s // DAY_S))
    requests = connection.execute(query).scalar_one()
    return served if requests is None else msgspec.structs.replace(served, requests=int(requests))
