"""The stages of a version, as one table.

    development --submit--> validation
    validation --accept--> staging
    validation --reject--> rejected
    validation --send_back--> development
    staging --copy--> shadow
    staging --release--> production
    staging --reject--> rejected
    staging --send_back--> validation
    shadow --release--> production
    shadow --reject--> rejected
    shadow --send_back--> staging
    production --demote--> staging
    development --archive--> archived
    validation --archive--> archived
    staging --archive--> archived
    shadow --archive--> archived
    production --archive--> archived
    archived --revive--> staging

`submit`, `accept`, `copy`, `release` and `revive` go forward, `send_back` and `demote` go back, the others put away.

A version that nobody has moved is in development, also in homes from before there were stages. `rejected` is final:
what was wrong is put right in another version. In shadow a version sees copies of production's traffic, and its
answers reach nobody. A stage says what a version may be used for; what is used is said by deployments.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion
from salver.protocol.stages import Stage
from salver.storage.registry_schema import stages
from salver.storage.schema import versions
from salver.transitions import IllegalTransition, Machine, Move

__all__ = [
    "FORWARD",
    "LIFECYCLE",
    "NEAR_PRODUCTION",
    "VersionStage",
    "goes_back",
    "in_stage",
    "require_way",
    "stage_of",
    "stages_of",
    "write_stage",
]


_D, _V, _S, _H, _P, _A, _R = Stage

LIFECYCLE: Final = Machine(
    "stages",
    (
        Move(_D, "submit", _V),
        Move(_V, "accept", _S),
        Move(_S, "copy", _H),
        *(Move(stage, "release", _P) for stage in (_S, _H)),
        *(Move(stage, "reject", _R) for stage in (_V, _S, _H)),
        *(Move(stage, "send_back", before) for stage, before in ((_V, _D), (_S, _V), (_H, _S))),
        Move(_P, "demote", _S),
        *(Move(stage, "archive", _A) for stage in (_D, _V, _S, _H, _P)),
        Move(_A, "revive", _S),
    ),
)


FORWARD: Final = frozenset({"submit", "accept", "copy", "release", "revive"})
"""Events that bring a version nearer to use."""
NEAR_PRODUCTION: Final = frozenset({Stage.STAGING, Stage.SHADOW, Stage.PRODUCTION})
_BACK: Final = frozenset({"send_back", "demote"})


class VersionStage(msgspec.Struct, frozen=True):
    """Where a version stands. `since_s` is None for one that nobody has moved yet."""

    model: str
    version: str
    stage: Stage = Stage.DEVELOPMENT
    since_s: float | None = None
    emergency: bool = False
    """It was once promoted past its gates; never taken back."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


def require_way(here: VersionStage, target: Stage) -> Move[Stage]:
    """The move from where a version stands; raises ILLEGAL_TRANSITION where the table has none."""
    try:
        return LIFECYCLE.way(here.stage, target)
    except IllegalTransition as error:
        possible = ", ".join(error.allowed)
        raise SalverError(
            "ILLEGAL_TRANSITION",
            f"{here.reference} is in {here.stage}, from where it cannot go to {target}",
            f"possible from there: {possible}" if possible else f"{here.stage} is final: register another version",
        ) from None


def goes_back(source: Stage, target: Stage) -> bool:
    """Whether a move takes a version further from use, and does not put it away."""
    return any((move.source, move.target) == (source, target) for move in LIFECYCLE.moves if move.event in _BACK)


def stage_of(connection: Connection, model: str, version: str) -> VersionStage:
    """Where a version stands. REQUIRES that it is registered."""
    query = select(stages).where(stages.c.model == model, stages.c.version == version)
    row = connection.execute(query).one_or_none()
    return VersionStage(model, version) if row is None else _entry(row)


def stages_of(connection: Connection, model: str | None = None, after: int = 0) -> tuple[VersionStage, ...]:
    """Where each version of a model stands, or of all models; the oldest registration first, those `after` an ordinal.

    What nobody has moved is where it is since it was registered.
    """
    known = select(versions.c.model, versions.c.version, versions.c.created_s)
    known = known.order_by(versions.c.model, versions.c.ordinal)
    same = (versions.c.model == stages.c.model) & (versions.c.version == stages.c.version)
    moved = select(stages).join(versions, same)
    if after:
        known, moved = known.where(versions.c.ordinal > after), moved.where(versions.c.ordinal > after)
    if model is not None:
        known, moved = known.where(versions.c.model == model), moved.where(stages.c.model == model)
    entries = {(row.model, row.version): _entry(row) for row in connection.execute(moved)}
    return tuple(
        entries.get((name, number), VersionStage(name, number, since_s=created_s))
        for name, number, created_s in connection.execute(known)
    )


def in_stage(connection: Connection, model: str, stage: Stage) -> tuple[VersionStage, ...]:
    """The versions of a model that were moved to a stage and are there."""
    query = select(stages).where(stages.c.model == model, stages.c.stage == stage.value).order_by(stages.c.version)
    return tuple(_entry(row) for row in connection.execute(query))


def write_stage(connection: Connection, entry: VersionStage) -> None:
    """Put a version where `entry` says. REQUIRES that `require_way` allowed it in the same transaction."""
    same = (stages.c.model == entry.model) & (stages.c.version == entry.version)
    sort_key = SemanticVersion.parse(entry.version).sort_key
    values = msgspec.structs.asdict(entry) | {"stage": entry.stage.value, "sort_key": sort_key}
    if connection.execute(update(stages).where(same).values(values)).rowcount == 0:
        connection.execute(insert(stages).values(values))


def _entry(row: Row[tuple[object, ...]]) -> VersionStage:
    return VersionStage(row.model, row.version, Stage(row.stage), row.since_s, row.emergency)
