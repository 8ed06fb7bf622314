"""Opening the job store: one SQLite file, its tables, and what a reboot does to the times in it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.storage.job_schema import LAYOUT, PRAGMAS, STATEMENTS
from salver.storage.owners import boot_id
from salver.storage.refusals import BUSY_TIMEOUT_S, sqlite_refusal
from salver.storage.snapshot import create_once

__all__ = ["STORE", "open_jobs", "refusals_of", "transaction"]

STORE: Final = "the job store"


def open_jobs(path: Path) -> sqlite3.Connection:
    """Open the store at `path` for reading and writing, creating it (mode 0600) if need be.

    Usable from any one thread at a time. Raises CORRUPT_ARTIFACT for a file that is none,
    REFUSED_BY_POLICY for one of another layout, STORAGE_FULL and CONFLICT as a write does.
    """
    if not path.exists():
        create_once(path, b"", 0o600)
    with refusals_of():
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            for pragma in PRAGMAS:
                connection.execute(pragma).fetchall()
            with transaction(connection):
                _prepare(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone()
    if found is None:
        for statement in STATEMENTS:
            connection.execute(statement)
        connection.execute("INSERT INTO facts VALUES ('layout', ?), ('boot', ?)", (str(LAYOUT), boot_id()))
        return
    facts = dict(connection.execute("SELECT name, value FROM facts"))
    if facts.get("layout") != str(LAYOUT):
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{STORE} has layout {str(facts.get('layout'))[:20]}; this Salver knows {LAYOUT}",
            "use the Salver that wrote it, or another home",
        )
    if facts.get("boot") != boot_id():
        # Whoever ran something is gone, and monotonic times begin anew: what waited is due, in its order.
        connection.execute("UPDATE jobs SET owner = '' WHERE state = 1")
        connection.execute("UPDATE jobs SET due_s = 0 WHERE state = 0 OR delivery = 1")
        connection.execute("UPDATE facts SET value = ? WHERE name = 'boot'", (boot_id(),))


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: on disk when the block has ended, or never happened."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have undone it already.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def refusals_of() -> Iterator[None]:
    """Turn what SQLite raises about the store into refusals, as far as it is no fault of ours."""
    try:
        yield
    except sqlite3.Error as error:
        refusal = sqlite_refusal(error, STORE)
        if refusal is None:
            raise
        raise refusal from error
