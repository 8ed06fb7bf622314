"""The steps from the first released schema to this one, run by Alembic.

A step is a file in `versions`. It states what it makes in full and imports no table of
`salver.storage.schema`: that says what is today, a step what was then. To change a table: change it
there, add a step that does the same to a database that has rows, and name the step in
`SCHEMA_REVISION`. tests/storage/test_migrations.py compares what the steps make with what a new
database has, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

__all__ = ["migrate", "newest", "steps"]


def steps() -> ScriptDirectory:
    """The steps there are."""
    return ScriptDirectory(str(Path(__file__).parent))


def newest() -> str | None:
    """The revision that all steps together lead to."""
    return steps().get_current_head()


def migrate(connection: Connection, found: str, target: str = "head") -> None:
    """Bring the tables from revision `found` (empty: none are there) to `target`, in the caller's transaction."""
    script = steps()

    def upgrade(revision: Any, _context: MigrationContext) -> list[RevisionStep]:
        return script._upgrade_revs(target, revision)

    context = MigrationContext.configure(connection, opts={"fn": upgrade, "script": script})
    if found and not context.get_current_revision():
        context.stamp(script, found)
    with Operations.context(context):
        context.run_migrations()
