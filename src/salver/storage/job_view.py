"""Reading the job store: by id, by list, and how much waits. Changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.jobs import Delivery, Job, JobState
from salver.storage.job_schema import JOB_COLUMNS

__all__ = [
    "Backlog",
    "JobList",
    "JobQuery",
    "Result",
    "backlogs",
    "check_store",
    "delivery_counts",
    "due_deliveries",
    "find_jobs",
    "list_jobs",
    "read_headers",
    "results",
]

_FIND: Final = f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?"  # noqa: S608 - our own names
_AWAITED: Final = (
    "WITH RECURSIVE awaited (name) AS (SELECT MIN(webhook) FROM jobs WHERE delivery = 1 UNION ALL SELECT "
    "(SELECT MIN(webhook) FROM jobs WHERE delivery = 1 AND webhook > name) FROM awaited WHERE name IS NOT NULL) "
    "SELECT name FROM awaited WHERE name IS NOT NULL"
)
"""Webhooks that are to be told of something: one step in the index for each, however many jobs wait behind it."""
_SCANNED: Final = 20_000
"""Jobs that one list looks at: whoever looks for few among many asks again from where it ended."""


class Result(NamedTuple):
    """The answer of a job that is done."""

    headers: dict[str, str]
    body: bytes


class JobQuery(NamedTuple):
    """Which jobs to list, newest first; `tenant` None for everybody's, `after` the last one listed before."""

    tenant: str | None
    endpoint: str | None = None
    state: JobState | None = None
    limit: int = 100
    after: bytes | None = None


class JobList(NamedTuple):
    """Some jobs, and where the next list begins; None when there is no more."""

    jobs: tuple[Job, ...]
    next: bytes | None


class Backlog(NamedTuple):
    """What of one endpoint has not ended.

    `oldest_s` is when the job that waits first in line was accepted, None where none waits.
    """

    endpoint: str
    waiting: int
    running: int
    oldest_s: float | None


def read_headers(text: str | None) -> dict[str, str]:
    """Headers as the store keeps them; none where there are none."""
    return msgspec.json.decode(text or "{}", type=dict[str, str])


def find_jobs(connection: sqlite3.Connection, ids: Sequence[bytes]) -> list[Job | None]:
    """The jobs with these ids, None for those that are not there."""
    return [
        _job(row) if row is not None else None
        for row in (connection.execute(_FIND, (each,)).fetchone() for each in ids)
    ]


def results(connection: sqlite3.Connection, ids: Sequence[bytes]) -> list[Result | None]:
    """The results of the jobs with these ids, None for those that have none."""
    return [
        None if row is None else Result(read_headers(row[0]), row[1])
        for row in (
            connection.execute(
                "SELECT headers, body FROM results WHERE seq = (SELECT seq FROM jobs WHERE id = ?)", (each,)
            ).fetchone()
            for each in ids
        )
    ]


def list_jobs(connection: sqlite3.Connection, queries: Sequence[JobQuery]) -> list[JobList]:
    """Jobs by query, newest first. A list may be shorter than its limit and have a next one all the same."""
    return [_list(connection, query) for query in queries]


def _list(connection: sqlite3.Connection, query: JobQuery) -> JobList:
    before = 2**62
    if query.after is not None:
        row = connection.execute("SELECT seq FROM jobs WHERE id = ?", (query.after,)).fetchone()
        if row is None:
            return JobList((), None)
        before = row[0]
    mine, values = ("", [before]) if query.tenant is None else ("AND tenant = ?", [before, query.tenant])
    wanted, sought = "1", list[Any]()
    for column, value in (("endpoint", query.endpoint), ("state", query.state)):
        if value is not None:
            wanted += f" AND {column} = ?"
            sought.append(value)
    rows = connection.execute(
        f"SELECT {JOB_COLUMNS} FROM (SELECT * FROM jobs WHERE seq < ? {mine} ORDER BY seq DESC LIMIT {_SCANNED}) "  # noqa: S608
        f"WHERE {wanted} LIMIT ?",
        (*values, *sought, query.limit),
    ).fetchall()
    if len(rows) == query.limit:
        return JobList(tuple(map(_job, rows)), rows[-1][0])
    last = connection.execute(
        f"SELECT id FROM jobs WHERE seq < ? {mine} ORDER BY seq DESC LIMIT 1 OFFSET {_SCANNED - 1}",  # noqa: S608
        values,
    ).fetchone()
    return JobList(tuple(map(_job, rows)), None if last is None else last[0])


def backlogs(connection: sqlite3.Connection, looks: Sequence[None]) -> list[list[Backlog]]:
    """What has not ended yet, by endpoint."""
    return [_backlogs(connection) for _ in looks]


def _backlogs(connection: sqlite3.Connection) -> list[Backlog]:
    counted: dict[str, list[int]] = {}
    oldest: dict[str, float] = {}
    tallies = connection.execute("SELECT endpoint, tenant, state, count FROM tallies WHERE state IN (0, 1)").fetchall()
    for endpoint, tenant, state, count in tallies:
        counted.setdefault(endpoint, [0, 0])[state] += count
        if state == JobState.QUEUED and count:
            (since_s,) = connection.execute(
                "SELECT accepted_s FROM jobs WHERE state = 0 AND endpoint = ? AND tenant = ? ORDER BY due_s LIMIT 1",
                (endpoint, tenant),
            ).fetchone()
            oldest[endpoint] = min(since_s, oldest.get(endpoint, since_s))
    return [Backlog(name, waiting, running, oldest.get(name)) for name, (waiting, running) in sorted(counted.items())]


def delivery_counts(connection: sqlite3.Connection, looks: Sequence[None]) -> list[dict[tuple[str, str], int]]:
    """How many tries of each webhook had which outcome."""
    found = {(name, outcome): count for name, outcome, count in connection.execute("SELECT * FROM delivery_counts")}
    return [found for _ in looks]


def due_deliveries(connection: sqlite3.Connection, looks: Sequence[tuple[float, int]]) -> list[list[Job]]:
    """Jobs that have ended and whose webhook is to be told by a monotonic time, so many of each webhook at most."""
    return [_due(connection, *look) for look in looks]


def _due(connection: sqlite3.Connection, now_s: float, most: int) -> list[Job]:
    names = [name for (name,) in connection.execute(_AWAITED)]
    return [
        _job(row)
        for name in names
        for row in connection.execute(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE delivery = 1 AND webhook = ? AND due_s <= ? ORDER BY due_s LIMIT ?",  # noqa: S608
            (name, now_s, most),
        )
    ]


def _job(row: Sequence[Any]) -> Job:
    fields = list(row)
    fields[4], fields[14] = JobState(fields[4]), Delivery(fields[14])
    return Job(*fields)


def check_store(path: Path) -> dict[str, int]:
    """Read the whole store at `path` and count its jobs by state; raises CORRUPT_ARTIFACT for a damaged one."""
    damaged = SalverError("CORRUPT_ARTIFACT", "the job store is damaged", "restore the home from a backup")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise damaged
            rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state")
            return {JobState(state).word: count for state, count in rows}
    except sqlite3.DatabaseError as error:
        raise damaged from error
