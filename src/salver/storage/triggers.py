"""Rows that are written once: the database itself refuses to change or remove them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

__all__ = ["forbid_changes"]

_FUNCTION: Final = "salver_written_once"
_DEFINITION: Final = f"""
CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        MESSAGE = 'rows of ' || TG_TABLE_NAME || ' are written once', ERRCODE = 'integrity_constraint_violation';
END $$
"""


def forbid_changes(connection: Connection, table: str) -> None:
    """Make UPDATE and DELETE on `table` an IntegrityError, and TRUNCATE where there is one.

    `table` is a name of our own schema, never one that came from outside.
    """
    for statement in _statements(connection, table):
        connection.exec_driver_sql(statement)


def _verbs(connection: Connection) -> tuple[str, ...]:
    return ("UPDATE", "DELETE", "TRUNCATE") if connection.dialect.name == "postgresql" else ("UPDATE", "DELETE")


def _statements(connection: Connection, table: str) -> list[str]:
    if connection.dialect.name == "postgresql":
        return [
            _DEFINITION,
            *(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"FOR EACH {'STATEMENT' if verb == 'TRUNCATE' else 'ROW'} EXECUTE FUNCTION {_FUNCTION}()"
                for verb in _verbs(connection)
            ),
        ]
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, 'rows of {table} are written once'); END"
        for verb in _verbs(connection)
    ]
