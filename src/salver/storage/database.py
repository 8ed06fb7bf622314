"""The database of a home: SQLite or PostgreSQL through SQLAlchemy Core, and both behave alike.

What a block of `Database.begin` wrote is on disk when the block has ended or has never happened.
Writers queue; readers see one snapshot and wait for nobody. Tests hold both kinds to one list of
checks (tests/checks/database_checks.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from salver.protocol.errors import SalverError
from salver.storage.backends import POOL_OVERFLOW, POOL_SIZE, WRITES, Backend
from salver.storage.belonging import check_belongs
from salver.storage.home import Home
from salver.storage.postgresql import PostgreSQL
from salver.storage.preparation import prepare
from salver.storage.schema import revision
from salver.storage.settings import read_storage_settings
from salver.storage.sqlite import SQLite

__all__ = ["Database", "current_revision", "open_database", "raise_revision"]

_CONNECTIONS: Final = POOL_SIZE + POOL_OVERFLOW


class Database:
    """One open database. Made by `Database.open`; usable from any thread; not across fork."""

    __slots__ = ("_backend", "_engine", "_opened")

    def __init__(self, backend: Backend, engine: Engine) -> None:
        self._backend = backend
        self._engine = engine
        self._opened = False
        event.listen(engine, "before_cursor_execute", _refuse_odd_texts)

    def __repr__(self) -> str:
        return f"<Database {self._engine.dialect.name}>"

    @classmethod
    def open(cls, place: Path | str, *, upgrade: bool = True) -> Database:
        """Open the database at `place`, a file or a postgresql:// URL, making its tables if need be.

        An older schema is brought up to date, unless `upgrade` is false: then it is a CONFLICT. Raises
        REFUSED_BY_POLICY for one that a newer Salver wrote, CORRUPT_ARTIFACT for a file that is no
        database, INVALID_SETTING for a URL that leads to none, STORAGE_FULL and CONTROL_UNAVAILABLE as
        `begin` does. Then nothing has changed.
        """
        backend = _backend(place)
        database = cls(backend, backend.engine())
        try:
            with backend.one_opener(), database.begin() as connection:
                prepare(connection, backend, upgrade=upgrade)
        except BaseException:
            database.close()
            raise
        database._opened = True
        return database

    @property
    def shared(self) -> bool:
        """Whether other homes may change this database, so that what it says must be looked at again."""
        return self._backend.shared

    def close(self) -> None:
        """Close all connections; the database itself needs no goodbye."""
        self._engine.dispose()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A write transaction: committed durably when the block ends, undone when it raises.

        Takes the write lock at once, so what the block reads stays true until it commits.
        Raises STORAGE_FULL, INVALID_PARAMETER for a text that no database keeps, or CONTROL_UNAVAILABLE while
        the database is away or damaged and when another writer does not finish in time; then nothing has changed -
        except that a server lost in the very moment of the commit leaves open which it was, and the error says so. Not
        re-entrant: an inner `begin` waits for the outer one in vain. After a statement that failed the
        block can only end.
        """
        with self._transaction(writing=True) as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: everything read in the block is of one moment, and nothing can be written."""
        with self._transaction(writing=False) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, writing: bool) -> Iterator[Connection]:
        committing = False
        try:
            self._backend.check_place()
            with self._engine.connect().execution_options(**{WRITES: writing}) as connection, connection.begin():
                yield connection
                committing = writing
        except (DBAPIError, sqlite3.Error) as error:  # the latter from the pragmas of a new connection
            cause = error.orig if isinstance(error, DBAPIError) else error
            refusal = self._backend.refusal(cause, writing=writing)
            if refusal is None:
                raise
            if committing and refusal.code == "CONTROL_UNAVAILABLE" and self.shared:
                raise _unknown_outcome(refusal) from error
            if self._opened and refusal.code == "CORRUPT_ARTIFACT":
                # One that was sound before: whoever asks cannot help it, and it may be sound again. Connections keep
                # pages that they have read, so the next who asks gets a new one.
                self._engine.dispose()
                raise SalverError(
                    "CONTROL_UNAVAILABLE", refusal.message, f"serving goes on; {refusal.remedy}"
                ) from error
            raise refusal from error
        except PoolTimeoutError as error:
            raise SalverError(
                "OVERLOADED",
                f"all {_CONNECTIONS} connections to the database are busy",
                "repeat when fewer ask at once",
                retry_after_s=1.0,
            ) from error


def open_database(home: Home, *, upgrade: bool = True) -> Database:
    """Open the database that `home` uses: what its storage.toml says, else `salver.db` in it.

    Raises what `Database.open` does, and REFUSED_BY_POLICY where the database belongs to homes with
    other secrets.
    """
    place = read_storage_settings(home.path).database or home.database_path
    database = Database.open(place, upgrade=upgrade)
    if database.shared:
        try:
            with database.begin() as connection:
                check_belongs(connection, home)
        except BaseException:
            database.close()
            raise
    return database


def _refuse_odd_texts(_c: Any, _cursor: Any, _text: str, parameters: Any, _context: Any, executemany: bool) -> None:
    """Raise INVALID_PARAMETER for a text that one database takes and another does not, or none."""
    for row in parameters if executemany else (parameters,):
        for value in row.values() if isinstance(row, dict) else row:
            if isinstance(value, str) and not _can_be_kept(value):
                raise SalverError(
                    "INVALID_PARAMETER",
                    f"the text {value[:80]!r} has a NUL character or half of a surrogate pair",
                    "leave it out: no database keeps it",
                )


def _can_be_kept(text: str) -> bool:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return "\0" not in text


def _backend(place: Path | str) -> Backend:
    return SQLite(place) if isinstance(place, Path) else PostgreSQL(place)


def _unknown_outcome(refusal: SalverError) -> SalverError:
    return SalverError(
        "CONTROL_UNAVAILABLE",
        "the database server was lost while the change was being committed, so it may have happened or not",
        "look when the database is back, and repeat the change if it is not there",
        retry_after_s=refusal.retry_after_s,
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
