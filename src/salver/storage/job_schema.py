"""The tables of the job store.

A file of its own beside the registry's: jobs come by the thousand and go again, and a server
process writes them without knowing of a registry. So it is SQLite through the standard library.
"""

from __future__ import annotations

from typing import Final

__all__ = ["JOB_COLUMNS", "LAYOUT", "PRAGMAS", "STATEMENTS"]

LAYOUT: Final = 2

PRAGMAS: Final = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # what has expired gives its space back; only an empty file takes this
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -16384",
)

_TALLY: Final = (
    "INSERT INTO tallies (endpoint, tenant, state, count) VALUES ({row}.endpoint, {row}.tenant, {row}.state, {by}) "
    "ON CONFLICT DO UPDATE SET count = count + {by}"
)

STATEMENTS: Final = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY,
        id BLOB NOT NULL UNIQUE,
        tenant TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        version TEXT NOT NULL,
        state INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL,
        accepted_s REAL NOT NULL,
        started_s REAL,
        ended_s REAL,
        expires_s REAL NOT NULL,
        code TEXT,
        message TEXT,
        webhook TEXT NOT NULL,
        delivery INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0,
        delivery_note TEXT,
        due_s REAL NOT NULL,
        owner TEXT,
        lease_s REAL,
        key TEXT,
        digest BLOB
    )""",
    # Monotonic seconds of `due_s` and `lease_s` mean something within one boot of the machine.
    "CREATE INDEX jobs_waiting ON jobs (endpoint, tenant, due_s) WHERE state = 0",
    "CREATE INDEX jobs_running ON jobs (owner) WHERE state = 1",
    "CREATE INDEX jobs_ending ON jobs (expires_s) WHERE state != 1",
    "CREATE INDEX jobs_of ON jobs (tenant)",
    "CREATE INDEX jobs_delivering ON jobs (webhook, due_s) WHERE delivery = 1",
    "CREATE UNIQUE INDEX jobs_named ON jobs (tenant, key) WHERE key IS NOT NULL",
    "CREATE TABLE bodies (seq INTEGER PRIMARY KEY, headers TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE results (seq INTEGER PRIMARY KEY, headers TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE tallies (endpoint TEXT, tenant TEXT, state INTEGER, count INTEGER NOT NULL, "
    "PRIMARY KEY (endpoint, tenant, state)) WITHOUT ROWID",
    "CREATE TABLE delivery_counts (webhook TEXT, outcome TEXT, count INTEGER NOT NULL, "
    "PRIMARY KEY (webhook, outcome)) WITHOUT ROWID",
    f"CREATE TRIGGER job_comes AFTER INSERT ON jobs BEGIN {_TALLY.format(row='new', by=1)}; END",
    "CREATE TRIGGER job_moves AFTER UPDATE OF state ON jobs WHEN new.state != old.state "
    f"BEGIN {_TALLY.format(row='old', by=-1)}; {_TALLY.format(row='new', by=1)}; END",
    f"CREATE TRIGGER job_goes AFTER DELETE ON jobs BEGIN {_TALLY.format(row='old', by=-1)}; END",
)

JOB_COLUMNS: Final = (
    "id, tenant, endpoint, version, state, attempts, bytes, accepted_s, started_s, ended_s, expires_s, "
    "code, message, webhook, delivery, deliveries, delivery_note"
)
"""In the order of the fields of `Job`."""
