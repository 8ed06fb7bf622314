"""The tables of the database, and the version of this schema.

Rows of `versions` and `journal` are written once: triggers refuse to change or remove them.
Structures are JSON text from the one codec that also reads them (msgspec), beside the columns
that queries need.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "METADATA",
    "SCHEMA_VERSION",
    "TRIGGERS",
    "deployments",
    "journal",
    "journal_head",
    "models",
    "revision",
    "schema",
    "tokens",
    "versions",
    "webhooks",
]

SCHEMA_VERSION: Final = 3
METADATA: Final = MetaData()


def _only_row() -> Column[int]:
    return Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False)


schema: Final = Table("schema", METADATA, _only_row(), Column("version", Integer, nullable=False))

revision: Final = Table("revision", METADATA, _only_row(), Column("value", Integer, nullable=False))

models: Final = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("created_s", Float, nullable=False),
)

versions: Final = Table(
    "versions",
    METADATA,
    Column("model", Text, ForeignKey("models.name"), primary_key=True),
    Column("version", Text, primary_key=True),
    Column("ordinal", Integer, nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("format", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    UniqueConstraint("model", "ordinal"),
)

deployments: Final = Table(
    "deployments",
    METADATA,
    Column("endpoint", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("updated_s", Float, nullable=False),
    Column("spec", Text, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)

tokens: Final = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("role", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("created_s", Float, nullable=False),
    Column("expires_s", Float),
)

webhooks: Final = Table(
    "webhooks",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("allow_private", Boolean, nullable=False),
    Column("created_s", Float, nullable=False),
)

journal: Final = Table(
    "journal",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at_s", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

journal_head: Final = Table(
    "journal_head",
    METADATA,
    _only_row(),
    Column("seq", Integer, nullable=False),
    Column("hash", Text, nullable=False),
)

TRIGGERS: Final = tuple(
    f"CREATE TRIGGER {table.name}_no_{verb.lower()} BEFORE {verb} ON {table.name} "
    f"BEGIN SELECT RAISE(ABORT, 'rows of {table.name} are written once'); END"
    for table in (versions, journal)
    for verb in ("UPDATE", "DELETE")
)
"""In the dialect of SQLite."""
