"""The schema as the first released Salver had it: version 3 of its table `schema`."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from salver.storage.triggers import forbid_changes

revision: Final = "0001"
down_revision: Final = None
branch_labels: Final = None
depends_on: Final = None

TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables, as in a home of that Salver before its first command."""
    _make_facts()
    _make_registry()
    _make_journal()
    op.create_table(
        "tokens",
        _text("id"),
        _text("name"),
        _text("role"),
        _text("tenant"),
        _text("hash"),
        _real("created_s"),
        sa.Column("expires_s", sa.Float()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_tokens_name", "tokens", ["name"])
    op.create_table(
        "webhooks",
        _text("name"),
        _text("id"),
        _text("url"),
        _text("tenant"),
        sa.Column("allow_private", sa.Boolean(), nullable=False),
        _real("created_s"),
        sa.PrimaryKeyConstraint("name"),
    )
    for table in ("versions", "journal"):
        forbid_changes(op.get_bind(), table)


def _make_facts() -> None:
    for name, column in (("schema", "version"), ("revision", "value")):
        made = op.create_table(
            name,
            _only_row(),
            _whole(column),
            sa.PrimaryKeyConstraint("id"),
        )
        op.bulk_insert(made, [{"id": 1, column: 3 if name == "schema" else 0}])


def _make_registry() -> None:
    op.create_table("models", _text("name"), _real("created_s"), sa.PrimaryKeyConstraint("name"))
    op.create_table(
        "versions",
        _text("model"),
        _text("version"),
        _whole("ordinal"),
        _text("digest"),
        _text("format"),
        _text("kind"),
        _real("created_s"),
        _text("created_by"),
        _text("manifest"),
        sa.PrimaryKeyConstraint("model", "version"),
        sa.ForeignKeyConstraint(["model"], ["models.name"]),
        sa.UniqueConstraint("model", "ordinal"),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "deployments",
        _text("endpoint"),
        _text("model"),
        _text("version"),
        _whole("generation"),
        _real("updated_s"),
        _text("spec"),
        sa.PrimaryKeyConstraint("endpoint"),
        sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    )


def _make_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        _real("at_s"),
        *(_text(name) for name in ("actor", "action", "subject", "details", "prev_hash", "hash")),
        sa.PrimaryKeyConstraint("seq"),
    )
    head = op.create_table(
        "journal_head",
        _only_row(),
        _whole("seq"),
        _text("hash"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "hash": "0" * 64}])


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _only_row() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), autoincrement=False, nullable=False)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False)
