"""Bringing a database to this Salver's schema: made anew, or migrated from the schema it has.

All of it happens in the one transaction that the caller has begun, so that a database is of the old
schema or of the new, whatever happens. Alembic is imported only when there is something to migrate.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, MetaData, inspect, select, text

from salver.protocol.errors import SalverError
from salver.storage import registry_schema
from salver.storage.backends import Backend
from salver.storage.schema import (
    METADATA,
    SCHEMA_REVISION,
    WRITTEN_ONCE,
    alembic_version,
    journal_head,
    revision,
)
from salver.storage.triggers import forbid_changes

__all__ = ["TABLES", "make_tables", "prepare"]

TABLES: Final[MetaData] = registry_schema.stages.metadata
"""All tables, also those that only `registry_schema` names."""
_FIRST_RELEASED: Final = 3
"""What the table `schema` of the first released Salver says; Alembic knows it as revision 0001."""


def prepare(connection: Connection, backend: Backend, *, upgrade: bool = True) -> None:
    """Make the tables, or bring them up to date where that is allowed; see `Database.open`."""
    found = _found(connection)
    if found == SCHEMA_REVISION:
        return
    if not found:
        backend.prepare(connection)
        make_tables(connection)
        return
    if found > SCHEMA_REVISION:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"the database has schema {found}; this Salver knows {SCHEMA_REVISION}",
            "use the Salver that wrote it, or another home",
        )
    if not upgrade:
        raise SalverError(
            "CONFLICT",
            f"the database has schema {found}, not {SCHEMA_REVISION}",
            "run `salver status` or `salver serve` once: that brings it up to date",
        )
    backend.keep_copy(f".before-{SCHEMA_REVISION}")
    from salver.storage.migrations import migrate  # noqa: PLC0415 - most databases need none of Alembic

    migrate(connection, found)


def make_tables(connection: Connection) -> None:
    """Make all tables of this Salver in an empty database."""
    METADATA.create_all(connection)
    for table in WRITTEN_ONCE:
        forbid_changes(connection, table)
    connection.execute(alembic_version.insert().values(version_num=SCHEMA_REVISION))
    connection.execute(revision.insert().values(id=1, value=0))
    connection.execute(journal_head.insert().values(id=1, seq=0, hash="0" * 64, peaks=""))


def _found(connection: Connection) -> str:
    """The revision of the tables that are there; empty where there are none."""
    if connection.dialect.has_table(connection, alembic_version.name):
        return str(connection.execute(select(alembic_version.c.version_num)).scalar_one())
    if connection.dialect.has_table(connection, "schema"):
        version = connection.execute(text("SELECT version FROM schema")).scalar_one()
        if version != _FIRST_RELEASED:
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"the database has schema {version}, which no released Salver wrote",
                "use the Salver that wrote it, or another home",
            )
        return "0001"
    if connection.dialect.name == "postgresql" and any(
        name in METADATA.tables for name in inspect(connection).get_table_names()
    ):
        raise SalverError(
            "REFUSED_BY_POLICY",
            "the database has tables of somebody else's that are named like Salver's",
            "name a database, or a user with a schema, of Salver's own",
        )
    return ""
