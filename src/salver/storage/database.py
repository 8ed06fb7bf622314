"""The database of a home: SQLite through SQLAlchemy Core.

What a block of `Database.begin` wrote is on disk when the block has ended (WAL with
synchronous=FULL: one fsync per commit) or has never happened. Writers queue; readers see one
snapshot and wait for nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, select, update
from sqlalchemy.exc import DBAPIError

from salver.protocol.errors import SalverError
from salver.storage.refusals import BUSY_TIMEOUT_S, sqlite_refusal
from salver.storage.schema import METADATA, SCHEMA_VERSION, TRIGGERS, journal_head, revision, schema
from salver.storage.snapshot import create_once

__all__ = ["Database", "current_revision", "raise_revision"]

_BEGIN: Final = "salver_begin"
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)


class Database:
    """One open database. Made by `Database.open`; usable from any thread; not across fork."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open the database at `path`, creating it (mode 0600) with its tables if need be.

        Raises REFUSED_BY_POLICY for one that a newer Salver wrote, CORRUPT_ARTIFACT for a
        file that is no database, STORAGE_FULL and CONFLICT as `begin` does.
        """
        # SQLite gives its WAL the mode of the database file. Never open and close the file itself
        # here: that would drop the locks that other connections of this process have on it.
        if not path.exists():
            create_once(path, b"", 0o600)
        url = URL.create("sqlite", database=str(path))
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        database = cls(engine)
        try:
            with _alone(path.parent), database.begin() as connection:
                _prepare(connection)
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close all connections; the database itself needs no goodbye."""
        self._engine.dispose()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A write transaction: committed durably when the block ends, undone when it raises.

        Takes the write lock at once, so what the block reads stays true until it commits.
        Raises CONFLICT when another writer does not finish in time, STORAGE_FULL, or
        CORRUPT_ARTIFACT; then nothing has changed. Not re-entrant: an inner `begin` waits for
        the outer one in vain.
        """
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: everything read in the block is of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(**{_BEGIN: begin}) as connection, connection.begin():
                yield connection
        except DBAPIError as error:
            refusal = sqlite_refusal(error.orig, waited_s=BUSY_TIMEOUT_S)
            if refusal is None:
                raise
            raise refusal from error
        except sqlite3.Error as error:  # from the pragmas of a new connection
            refusal = sqlite_refusal(error, waited_s=BUSY_TIMEOUT_S)
            if refusal is None:
                raise
            raise refusal from error


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One opener at a time: SQLite does not wait when two switch a new file to WAL at once."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transactions of its own; `_begin` does
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options()[_BEGIN])


def _prepare(connection: Connection) -> None:
    if not connection.dialect.has_table(connection, schema.name):
        METADATA.create_all(connection)
        for trigger in TRIGGERS:
            connection.exec_driver_sql(trigger)
        connection.execute(schema.insert().values(id=1, version=SCHEMA_VERSION))
        connection.execute(revision.insert().values(id=1, value=0))
        connection.execute(journal_head.insert().values(id=1, seq=0, hash="0" * 64))
        return
    found = connection.execute(select(schema.c.version)).scalar_one()
    if found != SCHEMA_VERSION:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"the database has schema {found}; this Salver knows {SCHEMA_VERSION}",
            "use the Salver that wrote it, or another home",
        )


def current_revision(connection: Connection) -> int:
    """The number of the published state: raised by every change that alters it."""
    return int(connection.execute(select(revision.c.value)).scalar_one())


def raise_revision(connection: Connection, above: int = 0) -> int:
    """Raise the revision, to more than `above`, and return the new one.

    REQUIRES the transaction that changes what is published.
    """
    raised = max(current_revision(connection), above) + 1
    connection.execute(update(revision).values(value=raised))
    return raised
