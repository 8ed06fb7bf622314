"""All rows of one database into another one, of either kind: for backups of PostgreSQL, and for moving."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Table, delete, insert, select

from salver.protocol.errors import SalverError
from salver.storage.preparation import TABLES
from salver.storage.schema import WRITTEN_ONCE, alembic_version, belonging, journal_head, revision

__all__ = ["copy_rows", "has_rows_of"]

_ROWS: Final = 2000
_OF_THE_DATABASE: Final = frozenset({alembic_version.name, belonging.name})
"""What is said of a database itself, and not of what it holds."""


def copy_rows(source: Connection, target: Connection) -> int:
    """Copy every row and return how many. Both have this Salver's schema, and the target nothing but that.

    REQUIRES connections from `Database.read` of the source and `Database.begin` of the target, so that what
    is copied is of one moment and arrives whole or not at all. Raises ALREADY_EXISTS for a target in use.
    """
    if _head(target) != (0, "0" * 64) or _revision(target):
        raise SalverError(
            "ALREADY_EXISTS",
            "the database to be filled is in use: its journal has records",
            "name an empty database; rows are never mixed",
        )
    copied = 0
    for table in TABLES.sorted_tables:  # what others refer to comes first
        if table.name not in _OF_THE_DATABASE:
            copied += _copy_table(source, target, table)
    return copied


def has_rows_of(source: Connection, target: Connection) -> bool:
    """Whether an earlier `copy_rows` has already arrived: the journals end in the same hash."""
    return _head(source) == _head(target) and _revision(source) == _revision(target) and _head(source)[0] > 0


def _copy_table(source: Connection, target: Connection, table: Table) -> int:
    if table.name not in WRITTEN_ONCE:
        target.execute(delete(table))  # the rows that every database begins with
    copied = 0
    found = source.execution_options(yield_per=_ROWS).execute(select(table))
    for rows in found.mappings().partitions():
        target.execute(insert(table), [dict(row) for row in rows])
        copied += len(rows)
    return copied


def _head(connection: Connection) -> tuple[int, str]:
    seq, last = connection.execute(select(journal_head.c.seq, journal_head.c.hash)).one()
    return seq, last


def _revision(connection: Connection) -> int:
    return int(connection.execute(select(revision.c.value)).scalar_one())
