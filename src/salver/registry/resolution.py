"""From what people call a version to its number: a number, "latest", an alias, or a stage that one version is in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.catalog import find_version
from salver.storage.registry_schema import aliases, stages
from salver.storage.schema import versions

__all__ = ["LATEST", "STAGE_NAMES", "resolve"]

LATEST: Final = "latest"
"""The highest release."""
STAGE_NAMES: Final = frozenset(stage.value for stage in Stage)


def resolve(connection: Connection, model: str, wanted: str | None) -> VersionManifest:
    """The version of `model` that `wanted` names; None and "latest" are the highest release.

    A stage stands for the highest version that is in it. Raises NOT_FOUND, saying what there is.
    """
    if wanted is None or wanted == LATEST:
        return find_version(connection, model, None)
    if wanted in STAGE_NAMES:
        return find_version(connection, model, _in_stage(connection, model, wanted))
    if wanted[:1].isdigit():
        return find_version(connection, model, str(SemanticVersion.parse(wanted)))
    query = select(aliases.c.version).where((aliases.c.model == model) & (aliases.c.alias == wanted))
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        find_version(connection, model, None)  # says so where the model itself is unknown
        known = connection.execute(select(aliases.c.alias).where(aliases.c.model == model).order_by(aliases.c.alias))
        listed = ", ".join(known.scalars()) or "none"
        raise SalverError(
            "NOT_FOUND",
            f"model {model!r} has no alias {wanted[:80]!r}",
            f"its aliases: {listed}; a number, a stage or {LATEST!r} do as well",
        )
    return find_version(connection, model, found)


def _in_stage(connection: Connection, model: str, stage: str) -> str:
    rows = connection.execute(select(stages.c.version).where((stages.c.model == model) & (stages.c.stage == stage)))
    found = list(rows.scalars())
    if stage == Stage.DEVELOPMENT:
        # What was never moved has no row.
        moved = select(stages.c.version).where(stages.c.model == model)
        rest = select(versions.c.version).where((versions.c.model == model) & versions.c.version.not_in(moved))
        found += connection.execute(rest).scalars()
    if not found:
        find_version(connection, model, None)
        raise SalverError("NOT_FOUND", f"no version of {model!r} is in {stage}", "`salver stage` lists the stages")
    return str(max(map(SemanticVersion.parse, found)))
