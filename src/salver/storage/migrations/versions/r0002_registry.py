"""What the registry knows beyond versions: proofs, descriptions, stages, judgements, use; and the journal as bytes.

Records of the journal come to hold their canonical bytes, over which the hashes always were, so every hash stays
what it was. A record that had been tampered with keeps the hash that does not fit, and `salver audit verify` goes on
naming it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

from salver.protocol.names import SemanticVersion
from salver.storage.triggers import forbid_changes

revision: Final = "0002"
down_revision: Final = "0001"
branch_labels: Final = None
depends_on: Final = None

TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WRITTEN_ONCE: Final = ("versions", "journal", "tree_heads", "attestations", "decisions", "deletions", "evaluations")
_PAGE: Final = 1000


def upgrade() -> None:
    """From the first released schema."""
    op.drop_table("schema")
    _remake_versions()
    _make_proofs()
    _make_descriptions()
    _make_stages()
    _make_judgements()
    _remake_journal()
    _remake_webhooks()
    for table in WRITTEN_ONCE:
        forbid_changes(op.get_bind(), table)


# New tables.


def _make_proofs() -> None:
    op.create_table(
        "belonging",
        _only_row(),
        _text("secrets"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tree_heads",
        _whole("size", autoincrement=False),
        _text("root"),
        _real("at_s"),
        _text("key_id"),
        _text("signature"),
        sa.PrimaryKeyConstraint("size"),
    )
    op.create_table(
        "attestations",
        _text("model"),
        _text("version"),
        _text("envelope"),
        _text("key_id"),
        _real("signed_s"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "revocations",
        _text("model"),
        _text("version"),
        _text("why"),
        _text("revoked_by"),
        _real("revoked_s"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )


def _make_descriptions() -> None:
    op.create_table(
        "metadata",
        _text("model"),
        _text("version"),
        _text("document"),
        _real("changed_s"),
        _text("changed_by"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "tags",
        _text("model"),
        _text("version"),
        _text("name"),
        _text("value"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version", "name"),
    )
    op.create_index("ix_tags_name", "tags", ["name"])
    op.create_table(
        "aliases",
        _text("model"),
        _text("alias"),
        _text("version"),
        _real("changed_s"),
        _text("changed_by"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "alias"),
    )
    op.create_table(
        "terms",
        _text("term"),
        _text("model"),
        _text("version"),
        _real("weight"),
        sa.PrimaryKeyConstraint("term", "model", "version"),
    )
    op.create_index("terms_of_version", "terms", ["model", "version"])
    op.create_table(
        "embeddings",
        _text("model"),
        _text("version"),
        _text("digest"),
        _text("embedder"),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "lineage",
        _text("model"),
        _text("version"),
        _text("relation"),
        _text("node"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version", "relation", "node"),
    )
    op.create_index("ix_lineage_node", "lineage", ["node"])


def _make_stages() -> None:
    op.create_table(
        "stages",
        _text("model"),
        _text("version"),
        _text("stage"),
        _real("since_s"),
        _truth("emergency"),
        _text("sort_key"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_index("ix_stages_stage", "stages", ["stage"])
    op.create_index("stages_by_number", "stages", ["model", "stage", "sort_key"])
    op.create_table(
        "decisions",
        _text("model"),
        _text("version"),
        _text("id"),
        _text("source"),
        _text("target"),
        _real("at_s"),
        _text("actor"),
        _text("verdict"),
        _truth("emergency"),
        _text("document"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version", "id"),
    )
    op.create_table(
        "approvals",
        _text("model"),
        _text("version"),
        _text("target"),
        _text("approved_by"),
        _text("role"),
        _real("approved_s"),
        _text("why"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version", "target", "approved_by"),
    )
    op.create_table(
        "evaluations",
        _text("model"),
        _text("version"),
        _text("id"),
        _text("suite"),
        _text("verdict"),
        _real("recorded_s"),
        _whole("seq"),
        _text("recorded_by"),
        _text("role"),
        _text("digest"),
        _text("data_digest"),
        sa.Column("data_rows", sa.BigInteger(), nullable=False),
        sa.Column("evaluated_rows", sa.BigInteger(), nullable=False),
        _text("against"),
        _text("numbers"),
        _text("document"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version", "id"),
    )


def _make_judgements() -> None:
    op.create_table(
        "cases",
        _text("id"),
        _text("model"),
        _text("document"),
        _real("recorded_s"),
        _text("recorded_by"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_cases_model", "cases", ["model"])
    op.create_table(
        "deletions",
        _text("model"),
        _text("version"),
        _text("why"),
        _text("deleted_by"),
        _real("deleted_s"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "holds",
        _text("model"),
        _text("version"),
        _text("why"),
        _text("held_by"),
        _real("held_s"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "retirements",
        _text("model"),
        _text("version"),
        _text("rule"),
        _text("reason"),
        _real("proposed_s"),
        _real("due_s"),
        _text("proposed_by"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "usage",
        _text("model"),
        _text("version"),
        _text("endpoint"),
        _text("client"),
        _whole("day", autoincrement=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        _real("first_s"),
        _real("last_s"),
        sa.PrimaryKeyConstraint("model", "version", "endpoint", "client", "day"),
    )
    op.create_table("change_positions", _text("webhook"), _whole("seq"), sa.PrimaryKeyConstraint("webhook"))
    op.create_table(
        "change_deliveries",
        _text("webhook"),
        _whole("seq", autoincrement=False),
        _text("state"),
        _whole("attempts"),
        _real("due_s"),
        _text("note"),
        sa.PrimaryKeyConstraint("webhook", "seq"),
    )
    op.create_index("ix_change_deliveries_state", "change_deliveries", ["state"])


# Tables that change: their rows are put aside, and into the table as it is now.


def _remake_versions() -> None:
    """Give each version what it is sorted by; what refers to versions has to stand aside meanwhile."""
    connection = op.get_bind()
    _put_aside("deployments")
    _put_aside("versions")
    made = op.create_table(
        "versions",
        *(_text(name) for name in ("model", "version")),
        _whole("ordinal"),
        *(_text(name) for name in ("digest", "format", "kind")),
        _real("created_s"),
        *(_text(name) for name in ("created_by", "manifest", "sort_key")),
        _truth("prerelease"),
        sa.PrimaryKeyConstraint("model", "version"),
        sa.UniqueConstraint("model", "ordinal"),
        sa.ForeignKeyConstraint(["model"], ["models.name"]),
    )
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_index("versions_by_number", "versions", ["model", "sort_key"])
    op.create_index("releases_by_number", "versions", ["model", "prerelease", "sort_key"])
    for row in connection.execute(sa.text("SELECT * FROM versions_before")).mappings().all():
        number = SemanticVersion.parse(row["version"])
        sorted_by = {"sort_key": number.sort_key, "prerelease": bool(number.prerelease)}
        connection.execute(made.insert(), dict(row) | sorted_by)
    op.drop_table("versions_before")
    op.create_table(
        "deployments",
        *(_text(name) for name in ("endpoint", "model", "version")),
        _whole("generation"),
        _real("updated_s"),
        _text("spec"),
        _of_a_version(),
        sa.PrimaryKeyConstraint("endpoint"),
    )
    op.execute("INSERT INTO deployments SELECT * FROM deployments_before")
    op.drop_table("deployments_before")


def _remake_journal() -> None:
    """Give each record its canonical bytes, and the head the peaks of their tree."""
    connection = op.get_bind()
    _put_aside("journal")
    made = op.create_table(
        "journal",
        _whole("seq", autoincrement=False),
        _real("at_s"),
        *(_text(name) for name in ("actor", "action", "subject", "record", "hash")),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_journal_actor", "journal", ["actor"])
    op.create_index("ix_journal_subject", "journal", ["subject"])
    peaks: list[bytes] = []
    size = seq = 0
    query = sa.text("SELECT * FROM journal_before WHERE seq > :seq ORDER BY seq LIMIT :page")
    while rows := connection.execute(query, {"seq": seq, "page": _PAGE}).mappings().all():
        records = [_with_bytes(dict(row)) for row in rows]
        connection.execute(made.insert(), records)
        for record in records:
            _grow(peaks, size, record["record"])
            size += 1
        seq = rows[-1]["seq"]
    op.drop_table("journal_before")
    _remake_head(b"".join(peaks).hex())


def _with_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """The row as it is now. What cannot be read goes in as it is: no hash will fit it."""
    fields = {name: row[name] for name in ("seq", "at_s", "actor", "action", "subject")}
    details = row["details"]
    try:
        parsed = json.loads(details)
        record = _canonical(fields | {"details": parsed})
        untouched = _canonical(parsed) == details
    except (ValueError, TypeError):
        record, untouched = "", False
    return fields | {"record": record if untouched else details, "hash": row["hash"]}


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _grow(peaks: list[bytes], size: int, record: str) -> None:
    """Add a leaf to the tree of RFC 6962, section 2.1, with `size` leaves so far: `peaks` are its perfect subtrees."""
    node = hashlib.sha256(b"\x00" + record.encode()).digest()
    while size & 1:
        node = hashlib.sha256(b"\x01" + peaks.pop() + node).digest()
        size >>= 1
    peaks.append(node)


def _remake_head(peaks: str) -> None:
    _put_aside("journal_head")
    op.create_table(
        "journal_head",
        _only_row(),
        _whole("seq"),
        _text("hash"),
        _text("peaks"),
        sa.PrimaryKeyConstraint("id"),
    )
    moved = sa.text("INSERT INTO journal_head SELECT id, seq, hash, :peaks FROM journal_head_before")
    op.get_bind().execute(moved, {"peaks": peaks})
    op.drop_table("journal_head_before")


def _remake_webhooks() -> None:
    _put_aside("webhooks")
    op.create_table(
        "webhooks",
        *(_text(name) for name in ("name", "id", "url", "tenant")),
        _truth("allow_private"),
        _real("created_s"),
        _text("actions"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute("INSERT INTO webhooks SELECT name, id, url, tenant, allow_private, created_s, '[]' FROM webhooks_before")
    op.drop_table("webhooks_before")


def _put_aside(table: str) -> None:
    """Move the rows of a table to another one: that way the new table has the names and triggers of a fresh one."""
    op.execute(f"CREATE TABLE {table}_before AS SELECT * FROM {table}")  # noqa: S608 - a name of ours
    op.drop_table(table)


# Columns, none of which may be empty.


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, TEXT, nullable=False)


def _whole(name: str, *, autoincrement: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), autoincrement=autoincrement, nullable=False)


def _only_row() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), autoincrement=False, nullable=False)


def _real(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False)


def _truth(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _of_a_version() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"])
