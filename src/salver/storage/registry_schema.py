"""The tables of what is known of versions: proofs, descriptions, lineage, stages, judgements and use.

What a version *is* stands in `versions` and never changes; what is known and decided about it stands here.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKeyConstraint, Index, Integer, LargeBinary, Table

from salver.storage.schema import METADATA, Text, written_once

__all__ = [
    "aliases",
    "approvals",
    "attestations",
    "cases",
    "change_deliveries",
    "change_positions",
    "decisions",
    "deletions",
    "embeddings",
    "evaluations",
    "holds",
    "lineage",
    "metadata",
    "retirements",
    "revocations",
    "stages",
    "tags",
    "terms",
    "usage",
]


def _of_version(name: str, *columns: Any) -> Table:
    """A table with rows about versions, which with further key columns are its primary key."""
    return Table(
        name,
        METADATA,
        Column("model", Text, primary_key=True),
        Column("version", Text, primary_key=True),
        *columns,
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
    )


# Proofs.

attestations: Final = written_once(
    _of_version(
        "attestations",
        Column("envelope", Text, nullable=False),
        Column("key_id", Text, nullable=False),
        Column("signed_s", Float, nullable=False),
    )
)
revocations: Final = _of_version(
    "revocations",
    Column("why", Text, nullable=False),
    Column("revoked_by", Text, nullable=False),
    Column("revoked_s", Float, nullable=False),
)

# Descriptions, and where they are looked for.

metadata: Final = _of_version(
    "metadata",
    Column("document", Text, nullable=False),
    Column("changed_s", Float, nullable=False),
    Column("changed_by", Text, nullable=False),
)
tags: Final = _of_version(
    "tags", Column("name", Text, primary_key=True, index=True), Column("value", Text, nullable=False)
)
aliases: Final = Table(
    "aliases",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("changed_s", Float, nullable=False),
    Column("changed_by", Text, nullable=False),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)
terms: Final = Table(
    "terms",
    METADATA,
    Column("term", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("weight", Float, nullable=False),
    Index("terms_of_version", "model", "version"),
)
"""The words of each version's description: an inverted index."""
embeddings: Final = _of_version(
    "embeddings",
    Column("digest", Text, nullable=False),
    Column("embedder", Text, nullable=False),
    Column("vector", LargeBinary, nullable=False),
)
lineage: Final = Table(
    "lineage",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("relation", Text, primary_key=True),
    Column("node", Text, primary_key=True, index=True),
    ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.version"]),
)
"""What a version was made of: `node` is "data:DIGEST", "run:ID", "commit:ID", "version:NAME@V", ..."""

# The way to production.

stages: Final = _of_version(
    "stages",
    Column("stage", Text, nullable=False, index=True),
    Column("since_s", Float, nullable=False),
    Column("emergency", Boolean, nullable=False),
    Column("sort_key", Text, nullable=False),
    Index("stages_by_number", "model", "stage", "sort_key"),
)
"""`sort_key` is that of the version; `emergency`: it once came into production past its gates; never taken back."""
decisions: Final = written_once(
    _of_version(
        "decisions",
        Column("id", Text, primary_key=True),
        Column("source", Text, nullable=False),
        Column("target", Text, nullable=False),
        Column("at_s", Float, nullable=False),
        Column("actor", Text, nullable=False),
        Column("verdict", Text, nullable=False),
        Column("emergency", Boolean, nullable=False),
        Column("document", Text, nullable=False),
    )
)
approvals: Final = _of_version(
    "approvals",
    Column("target", Text, primary_key=True),
    Column("approved_by", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("approved_s", Float, nullable=False),
    Column("why", Text, nullable=False),
)
evaluations: Final = written_once(
    _of_version(
        "evaluations",
        Column("id", Text, primary_key=True),
        Column("suite", Text, nullable=False),
        Column("verdict", Text, nullable=False),
        Column("recorded_s", Float, nullable=False),
        Column("seq", Integer, nullable=False),  # of its record in the journal: clocks may be set back
        Column("recorded_by", Text, nullable=False),
        Column("role", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("data_digest", Text, nullable=False),
        Column("data_rows", BigInteger, nullable=False),
        Column("evaluated_rows", BigInteger, nullable=False),
        Column("against", Text, nullable=False),
        Column("numbers", Text, nullable=False),
        Column("document", Text, nullable=False),
    )
)
"""Judgements of suites and checks about a version: the evidence of gates, which read all columns but the document."""
cases: Final = Table(
    "cases",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False, index=True),
    Column("document", Text, nullable=False),
    Column("recorded_s", Float, nullable=False),
    Column("recorded_by", Text, nullable=False),
)
"""Inputs that once went wrong, which every later version is asked."""
deletions: Final = written_once(
    _of_version(
        "deletions",
        Column("why", Text, nullable=False),
        Column("deleted_by", Text, nullable=False),
        Column("deleted_s", Float, nullable=False),
    )
)
"""Versions whose files are given up."""
holds: Final = _of_version(
    "holds",
    Column("why", Text, nullable=False),
    Column("held_by", Text, nullable=False),
    Column("held_s", Float, nullable=False),
)
"""Versions that are kept as evidence: neither retired nor removed."""
retirements: Final = _of_version(
    "retirements",
    Column("rule", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_s", Float, nullable=False),
    Column("due_s", Float, nullable=False),
    Column("proposed_by", Text, nullable=False),
)

# Use.

usage: Final = Table(
    "usage",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("client", Text, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("requests", BigInteger, nullable=False),
    Column("first_s", Float, nullable=False),
    Column("last_s", Float, nullable=False),
)
"""Who asked which version, by days since 1970 (UTC)."""

# Telling others.

change_positions: Final = Table(
    "change_positions",
    METADATA,
    Column("webhook", Text, primary_key=True),
    Column("seq", Integer, nullable=False),
)
"""Up to which record of the journal a webhook has been looked after."""
change_deliveries: Final = Table(
    "change_deliveries",
    METADATA,
    Column("webhook", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("due_s", Float, nullable=False),
    Column("note", Text, nullable=False),
)
"""Records that a webhook is still to be told of, and those it could not be told of."""
