"""Which versions may serve: those that are neither archived nor rejected nor revoked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, select

from salver.protocol.stages import OUT
from salver.storage.registry_schema import deletions, revocations, stages
from salver.storage.schema import versions

__all__ = ["MAY_SERVE", "REVOKED", "is_deleted", "not_revoked", "put_away"]

REVOKED: Final = "revoked"
_OUT: Final = tuple(sorted(OUT))


def not_revoked(table: Table) -> ColumnElement[bool]:
    """The condition that a version of which `table` has rows was not revoked."""
    same = (revocations.c.model == table.c.model) & (revocations.c.version == table.c.version)
    return ~select(revocations.c.model).where(same).correlate(table).exists()


def _in_use() -> ColumnElement[bool]:
    same = (stages.c.model == versions.c.model) & (stages.c.version == versions.c.version)
    return ~select(stages.c.model).where(same, stages.c.stage.in_(_OUT)).correlate(versions).exists()


MAY_SERVE: Final = _in_use() & not_revoked(versions)
"""The condition of rows of `versions`."""


def put_away(connection: Connection, model: str) -> Mapping[str, str]:
    """The versions of a model that may not serve: of each the stage that it is in, or "revoked"."""
    staged = select(stages.c.version, stages.c.stage).where(stages.c.model == model, stages.c.stage.in_(_OUT))
    revoked = select(revocations.c.version).where(revocations.c.model == model)
    away = {row.version: str(row.stage) for row in connection.execute(staged)}
    return away | dict.fromkeys(connection.execute(revoked).scalars(), REVOKED)


def is_deleted(connection: Connection, model: str, version: str) -> bool:
    """Whether the files of a version are given up."""
    query = select(deletions.c.model).where(deletions.c.model == model, deletions.c.version == version)
    return connection.execute(query).one_or_none() is not None
