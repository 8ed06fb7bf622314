"""SQLite as the database of a home: one file, WAL, an fsync with each commit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event

from salver.protocol.errors import SalverError
from salver.storage import refusals
from salver.storage.backends import POOL_OVERFLOW, POOL_SIZE, POOL_TIMEOUT_S, WRITES
from salver.storage.snapshot import TEMPORARY_SUFFIX, create_once, full_disk_is_reported, sync_directory

__all__ = ["SQLite", "copy_database"]

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA case_sensitive_like = ON",  # as in PostgreSQL
)


class SQLite:
    """The database file at `path`, created (mode 0600) if there is none."""

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        # SQLite gives its WAL the mode of the database file. Never open and close the file itself
        # here: that would drop the locks that other connections of this process have on it.
        if not path.exists():
            create_once(path, b"", 0o600)
        self._identity = _identity(path)

    def engine(self) -> Engine:
        """See `Backend`."""
        # Never made by connecting: a file that vanished must be missed.
        url = URL.create("sqlite", database=self._path.absolute().as_uri(), query={"mode": "rw", "uri": "true"})
        engine = create_engine(
            url,
            connect_args={"timeout": refusals.BUSY_TIMEOUT_S},
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            pool_timeout=POOL_TIMEOUT_S,
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine

    @contextlib.contextmanager
    def one_opener(self) -> Iterator[None]:
        """SQLite does not wait when two switch a new file to WAL at once."""
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def check_place(self) -> None:
        """A file that was removed or replaced would take changes that nobody finds again."""
        if _identity(self._path) != self._identity:
            raise SalverError(
                "CONTROL_UNAVAILABLE",
                "the database file of the home was removed or replaced",
                "put it back while nothing uses the home, or restore a backup, and start again",
            )

    def keep_copy(self, suffix: str) -> None:
        """See `Backend`."""
        copy_database(self._path, self._path.with_name(self._path.name + suffix))

    def refusal(self, error: BaseException | None, *, writing: bool) -> SalverError | None:
        """See `Backend`."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_CANTOPEN or (code == sqlite3.SQLITE_READONLY and writing):
            return SalverError(
                "CONTROL_UNAVAILABLE",
                "the database of the home cannot be opened for writing",
                "look whether its file is there and its file system writable",
            )
        return refusals.sqlite_refusal(error, waited_s=refusals.BUSY_TIMEOUT_S)

    def prepare(self, connection: Connection) -> None:
        """SQLite needs nothing."""


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that may be in use to the one file `target`, durable on return; replaces what is there.

    What was committed before is in the copy, and it is of one moment. Raises STORAGE_FULL without having
    touched `target`, and sqlite3.Error for a source that is no database.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=TEMPORARY_SUFFIX, dir=target.parent)
    temporary = Path(name)
    try:
        with full_disk_is_reported():
            _copy(source, temporary)
            os.fsync(descriptor)
            temporary.replace(target)
            sync_directory(target.parent)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(source.absolute().as_uri() + "?mode=rw", uri=True)) as ours,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as theirs,
    ):
        try:
            ours.backup(theirs)  # all pages in one step, so of one moment
            theirs.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            refusal = refusals.sqlite_refusal(error, "the copy of the database")
            if refusal is None:
                raise
            raise refusal from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver starts no transactions of its own; `_begin` does
    for pragma in _PRAGMAS:
        connection.execute(pragma).close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options()[WRITES]
    connection.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
