"""Reading a copy of a home's database where it lies, without a home, a lock or a trace in it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, create_engine, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from salver.protocol.errors import SalverError
from salver.storage.schema import journal

__all__ = ["read_copy"]


@contextlib.contextmanager
def read_copy(path: Path) -> Iterator[Connection]:
    """The SQLite database at `path`, of one moment; nothing can be written through it.

    Without a write-ahead log beside it the file is taken as it is and nothing is made beside it; REQUIRES that nobody
    writes to it then. Raises NOT_FOUND for no file, CORRUPT_ARTIFACT for one that is no such database.
    """
    if not path.is_file():
        raise SalverError("NOT_FOUND", f"there is no file {path}", "name the salver.db of a backup")
    as_it_is = not path.with_name(f"{path.name}-wal").exists()
    mode = {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if as_it_is else {})
    engine = create_engine(URL.create("sqlite", database=f"file:{path.absolute()}", query=mode), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(select(journal.c.record).limit(1)).first()
            yield connection
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise SalverError(
            "CORRUPT_ARTIFACT",
            f"{path.name} is damaged, or no database of this Salver",
            "name the salver.db of a backup; one of an older Salver is brought up to date with its home",
        ) from error
    finally:
        engine.dispose()
