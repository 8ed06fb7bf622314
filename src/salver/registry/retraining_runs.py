"""The runs of a model's retraining as the journal tells of them, and how long it rests after them.

A run that made a version is followed by the whole cool-down, from its begin on. One that failed, or of which no end
is known, is followed by a short rest that doubles with each failure in a row: a full disk must not cost a day.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, select

from salver.protocol.journal_actions import JournalAction
from salver.storage.journal import JournalRecord, read_records, with_previous
from salver.storage.schema import journal, versions

__all__ = ["BEGIN", "END", "RUN", "RetrainingState", "state_of"]

BEGIN: Final[JournalAction] = "retrain_begin"
END: Final[JournalAction] = "retrain_end"
RUN: Final = "retraining_run"
"""Under which name the metadata of a version say which run made it."""
_FIRST_REST_S: Final = 60.0
_LONGEST_REST_S: Final = 3600.0
_LOOKED_AT: Final = 24
"""Records: two for each run, and more failures than it takes to reach the longest rest."""


class RetrainingState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the retraining of a model stands: its newest run, and when a verdict may begin the next."""

    model: str
    run: int = 0
    """The number of the newest; 0 before the first."""
    begun_s: float = 0.0
    ended_s: float | None = None
    version: str = ""
    """The one that it made; empty where it made none."""
    problem: str = ""
    """Why it failed."""
    failures: int = 0
    """How many have failed since the last that made something; of many the newest dozen."""
    rests_until_s: float = 0.0


def state_of(connection: Connection, model: str, cool_down_s: float) -> RetrainingState:
    """How the retraining of a model stands, whose hook rests for `cool_down_s`."""
    about = with_previous().where(journal.c.subject == model, journal.c.action.in_((BEGIN, END)))
    records = read_records(connection, about.order_by(journal.c.seq.desc()).limit(_LOOKED_AT))
    ends = {record.details["run"]: record for record in records if record.action == END}
    begun = [record for record in records if record.action == BEGIN]
    if not begun:
        return RetrainingState(model)
    newest, end = begun[0], ends.get(begun[0].seq)
    made = _made(connection, newest, end)
    failures = 0
    for record in begun:
        if _made(connection, record, ends.get(record.seq)):
            break
        failures += 1
    problem = "" if made else str(end.details.get("problem", "")) if end else "it has not ended, or was killed"
    since_s = newest.at_s if made or end is None else end.at_s
    rest_s = cool_down_s if made else min(_FIRST_REST_S * 2 ** (failures - 1), _LONGEST_REST_S, cool_down_s)
    ended_s = end.at_s if end else None
    return RetrainingState(model, newest.seq, newest.at_s, ended_s, made, problem, failures, since_s + rest_s)


def _made(connection: Connection, begun: JournalRecord, end: JournalRecord | None) -> str:
    """The version that a run made: as its end says, or as a version does whose maker was killed before it could."""
    if end is not None and end.details.get("version"):
        return str(end.details["version"])
    named = versions.c.manifest.contains(f'"{RUN}":"{begun.seq}"', autoescape=True)
    query = select(versions.c.version).where(versions.c.model == begun.subject, named).limit(1)
    return connection.execute(query).scalar_one_or_none() or ""
