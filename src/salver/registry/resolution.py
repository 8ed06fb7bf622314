"""From what people call a version to its number: a number, "latest", an alias, or a stage that one version is in.

A number, an alias and the stages `archived` and `rejected` find what must not serve, too: who names it means it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.by_number import highest_in_stage
from salver.registry.catalog import find_version, highest_version, require_model
from salver.storage.registry_schema import aliases

__all__ = ["LATEST", "STAGE_NAMES", "resolve"]

LATEST: Final = "latest"
"""The highest release that may serve."""
STAGE_NAMES: Final = frozenset(stage.value for stage in Stage)
_TOLD: Final = 20
"""Names in a message."""


def resolve(connection: Connection, model: str, wanted: str | None) -> VersionManifest:
    """The version of `model` that `wanted` names; None and "latest" are the highest release that may serve.

    A stage stands for the highest version in it that is not revoked. Raises NOT_FOUND, saying what there is.
    """
    if wanted is None or wanted == LATEST:
        return highest_version(connection, model)
    if wanted in STAGE_NAMES:
        return find_version(connection, model, _in_stage(connection, model, wanted))
    if wanted[:1].isdigit():
        return find_version(connection, model, str(SemanticVersion.parse(wanted)))
    query = select(aliases.c.version).where((aliases.c.model == model) & (aliases.c.alias == wanted))
    found = connection.execute(query).scalar_one_or_none()
    if found is None:
        require_model(connection, model)
        known = connection.execute(select(aliases.c.alias).where(aliases.c.model == model).order_by(aliases.c.alias))
        listed = ", ".join(known.scalars()) or "none"
        raise SalverError(
            "NOT_FOUND",
            f"model {model!r} has no alias {wanted[:80]!r}",
            f"its aliases: {listed}; a number, a stage or {LATEST!r} do as well",
        )
    return find_version(connection, model, found)


def _in_stage(connection: Connection, model: str, stage: str) -> str:
    usable = highest_in_stage(connection, model, stage)
    if usable:
        return usable[0]
    require_model(connection, model)
    found = highest_in_stage(connection, model, stage, _TOLD, revoked=True)
    if found:
        raise SalverError(
            "NOT_FOUND",
            f"all versions of {model!r} in {stage} are revoked: {', '.join(found)}",
            f"name one exactly to look at it, such as {model}@{found[0]}",
        )
    raise SalverError(
        "NOT_FOUND", f"no version of {model!r} is in {stage}", f"salver stage {model} shows where they are"
    )
