"""Versions of a model in the order of their numbers; however many there are, those are read that are asked for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    false,
    func,
    or_,
    select,
    true,
    union_all,
)

from salver.protocol.names import SemanticVersion
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.availability import MAY_SERVE, not_revoked
from salver.storage.registry_schema import stages
from salver.storage.schema import Text, versions

__all__ = ["RELEASED", "Highest", "highest_and", "highest_in_stage", "latest", "neighbours"]

RELEASED: Final = versions.c.prerelease == false()
"""The condition of what is no pre-release."""


class Highest(NamedTuple):
    """Some versions of a model, the lowest first."""

    manifests: tuple[VersionManifest, ...]
    total: int
    """How many there are."""


def _in_stage(*, revoked: bool) -> Select[str]:
    """The highest `most` versions of a `model` in a `stage`, without or with those that are revoked."""
    model, stage = bindparam("model", type_=Text), bindparam("stage", type_=Text)
    most = bindparam("most", type_=Integer)
    moved = select(stages.c.sort_key, stages.c.version).where(stages.c.model == model, stages.c.stage == stage)
    row = (stages.c.model == versions.c.model) & (stages.c.version == versions.c.version)
    # What was never moved has no row.
    others = select(versions.c.sort_key, versions.c.version).where(
        versions.c.model == model, stage == Stage.DEVELOPMENT.value, ~select(stages.c.model).where(row).exists()
    )
    if not revoked:
        moved, others = moved.where(not_revoked(stages)), others.where(not_revoked(versions))
    moved = moved.order_by(stages.c.sort_key.desc()).limit(most)
    others = others.order_by(versions.c.sort_key.desc()).limit(most)
    both = union_all(moved.subquery().select(), others.subquery().select()).subquery()
    return select(both.c.version).order_by(both.c.sort_key.desc()).limit(most)


# To put a statement together takes longer than to carry it out.
_USABLE: Final = _in_stage(revoked=False)
_EVERY: Final = _in_stage(revoked=True)
_LATEST: Final = (
    select(versions.c.manifest)
    .where(versions.c.model == bindparam("model"), RELEASED, MAY_SERVE)
    .order_by(versions.c.sort_key.desc())
    .limit(1)
)


def latest(connection: Connection, model: str) -> VersionManifest | None:
    """The highest release that may serve."""
    text = connection.execute(_LATEST, {"model": model}).scalar_one_or_none()
    return None if text is None else VersionManifest.parse(text)


def highest_in_stage(
    connection: Connection, model: str, stage: str, most: int = 1, *, revoked: bool = False
) -> tuple[str, ...]:
    """The numbers of the highest versions in a stage, the highest first; with `revoked` also those that were."""
    given = {"model": model, "stage": stage, "most": most}
    return tuple(connection.execute(_EVERY if revoked else _USABLE, given).scalars())


def neighbours(connection: Connection, model: str, wanted: SemanticVersion | None) -> tuple[VersionManifest, ...]:
    """The versions that `salver.registry.numbering` looks at: it finds the same in these as in all.

    They are the highest one, the highest release, and of the releases the nearest below a wanted number and the
    nearest one above it that is not the release of the same three numbers.
    """
    down, up = versions.c.sort_key.desc(), versions.c.sort_key
    found = [_next(connection, model, down), _next(connection, model, down, RELEASED)]
    if wanted is not None:
        past = f"{wanted.release.precedence_key}~"
        found += [
            _next(connection, model, down, RELEASED, versions.c.sort_key < wanted.precedence_key),
            _next(connection, model, up, RELEASED, versions.c.sort_key > past),
        ]
    return tuple({each.version: each for each in found if each is not None}.values())


def highest_and(connection: Connection, model: str, most: int, named: Collection[str]) -> Highest:
    """The highest versions of a model and those that are `named`."""
    mine = versions.c.model == model
    top = select(versions.c.sort_key).where(mine).order_by(versions.c.sort_key.desc()).offset(most - 1).limit(1)
    lowest = connection.execute(top).scalar_one_or_none()
    shown = true() if lowest is None else or_(versions.c.sort_key >= lowest, versions.c.version.in_(named))
    query = select(versions.c.manifest).where(mine, shown).order_by(versions.c.sort_key)
    total = connection.execute(select(func.count()).select_from(versions).where(mine)).scalar_one()
    return Highest(tuple(map(VersionManifest.parse, connection.execute(query).scalars())), total)


def _next(
    connection: Connection, model: str, order: ColumnElement[str], *where: ColumnElement[bool]
) -> VersionManifest | None:
    query = select(versions.c.manifest).where(versions.c.model == model, *where).order_by(order).limit(1)
    text = connection.execute(query).scalar_one_or_none()
    return None if text is None else VersionManifest.parse(text)
