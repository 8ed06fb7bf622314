"""Which versions may serve, those that are neither archived nor rejected nor revoked; and of each what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, select

from salver.protocol.stages import OUT
from salver.registry.stages import VersionStage, stages_of
from salver.storage.registry_schema import deletions, revocations, stages
from salver.storage.schema import versions

__all__ = ["MAY_SERVE", "REVOKED", "Standing", "is_deleted", "not_revoked", "put_away", "standings_of"]

REVOKED: Final = "revoked"
_OUT: Final = tuple(sorted(OUT))


class Standing(VersionStage, frozen=True):
    """Where a version stands, and whether it is revoked or its files are given up."""

    revoked: bool = False
    deleted: bool = False


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


def standings_of(connection: Connection, model: str | None = None, after: int = 0) -> tuple[Standing, ...]:
    """What `stages_of` gives, and what else became of each version."""

    def listed(table: Table) -> set[tuple[str, str]]:
        query = select(table.c.model, table.c.version)
        query = query if model is None else query.where(table.c.model == model)
        return {(row.model, row.version) for row in connection.execute(query)}

    revoked, deleted = listed(revocations), listed(deletions)
    return tuple(
        Standing(
            **msgspec.structs.asdict(each),
            revoked=(each.model, each.version) in revoked,
            deleted=(each.model, each.version) in deleted,
        )
        for each in stages_of(connection, model, after)
    )


def is_deleted(connection: Connection, model: str, version: str) -> bool:
    """Whether the files of a version are given up."""
    query = select(deletions.c.model).where(deletions.c.model == model, deletions.c.version == version)
    return connection.execute(query).one_or_none() is not None
