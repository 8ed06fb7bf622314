"""The tables of the database, and the version of this schema.

Rows of some tables are written once: triggers refuse to change or remove them.
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
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy import Text as _Text

__all__ = [
    "METADATA",
    "SCHEMA_REVISION",
    "WRITTEN_ONCE",
    "alembic_version",
    "belonging",
    "deployments",
    "journal",
    "journal_head",
    "models",
    "revision",
    "tokens",
    "tree_heads",
    "versions",
    "webhooks",
    "written_once",
]

SCHEMA_REVISION: Final = "0002"
"""The newest of `salver.storage.migrations`: whoever changes a table adds one and names it here."""
METADATA: Final = MetaData()
Text: Final = _Text().with_variant(_Text(collation="C"), "postgresql")
"""Text sorts by its code points, in PostgreSQL as in SQLite and Python."""
WRITTEN_ONCE: Final[list[str]] = []
"""Tables whose rows nothing changes or removes; the database itself refuses it."""


def written_once(table: Table) -> Table:
    """Note that rows of `table` are never changed; returns it."""
    WRITTEN_ONCE.append(table.name)
    return table


def _only_row() -> Column[int]:
    return Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False)


alembic_version: Final = Table("alembic_version", METADATA, Column("version_num", String(32), nullable=False))
alembic_version.append_constraint(PrimaryKeyConstraint("version_num", name="alembic_version_pkc"))
"""The one row says which revision the tables have; Alembic's own table, as Alembic makes it."""

belonging: Final = Table("belonging", METADATA, _only_row(), Column("secrets", Text, nullable=False))
"""Of a shared database: a fingerprint of the secrets that all its homes have; see `salver.storage.belonging`."""

revision: Final = Table("revision", METADATA, _only_row(), Column("value", Integer, nullable=False))

models: Final = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("created_s", Float, nullable=False),
)

versions: Final = written_once(
    Table(
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
        Column("sort_key", Text, nullable=False),
        Column("prerelease", Boolean, nullable=False),
        UniqueConstraint("model", "ordinal"),
        Index("versions_by_number", "model", "sort_key"),
        Index("releases_by_number", "model", "prerelease", "sort_key"),
    )
)
"""`sort_key` sorts as numbers of versions do: `salver.protocol.names.SemanticVersion.sort_key`."""

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
    Column("actions", Text, nullable=False),
)
"""`actions`: those of the journal that it is told of, as a JSON list of names; "*" stands for all."""

journal: Final = written_once(
    Table(
        "journal",
        METADATA,
        Column("seq", Integer, primary_key=True, autoincrement=False),
        Column("at_s", Float, nullable=False),
        Column("actor", Text, nullable=False, index=True),
        Column("action", Text, nullable=False),
        Column("subject", Text, nullable=False, index=True),
        Column("record", Text, nullable=False),
        Column("hash", Text, nullable=False),
    )
)
"""`record` holds the canonical bytes that `hash` is over; the columns before it repeat what queries need."""

journal_head: Final = Table(
    "journal_head",
    METADATA,
    _only_row(),
    Column("seq", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("peaks", Text, nullable=False),
)
"""`peaks`: the roots of the perfect subtrees over all records, for the next signed tree head."""

tree_heads: Final = written_once(
    Table(
        "tree_heads",
        METADATA,
        Column("size", Integer, primary_key=True, autoincrement=False),
        Column("root", Text, nullable=False),
        Column("at_s", Float, nullable=False),
        Column("key_id", Text, nullable=False),
        Column("signature", Text, nullable=False),
    )
)
