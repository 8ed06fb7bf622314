"""Reading what could be recommended: all versions that are not put away, with what is said and measured of them."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, and_, select

from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.nearest import did_you_mean, listed
from salver.protocol.signature import Signature
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.availability import MAY_SERVE
from salver.registry.failures import failed_suites
from salver.registry.recommendation import MOST_COLUMNS, MOST_VALUES, DataShape, Offer, Recommendation, recommend
from salver.registry.resolution import resolve
from salver.storage.database import Database
from salver.storage.registry_schema import metadata, stages
from salver.storage.schema import versions

__all__ = ["Offers"]

_MOST = 100


class Offers:
    """The versions in one database that could be recommended."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def recommended(
        self,
        task: str = "",
        data: DataShape | None = None,
        like: tuple[str, str] | Signature | None = None,
        most: int = 10,
    ) -> tuple[Recommendation, ...]:
        """See `recommend`. Raises NOT_FOUND for an unknown `like`, INVALID_PARAMETER for nothing or too much asked."""
        _check(task, data, like, most)
        with self._database.read() as connection:
            offers = _offers(connection)
            wanted = resolve(connection, *like) if isinstance(like, tuple) else like
        return recommend(offers, task=task, data=data, like=wanted, most=most)


def _check(task: str, data: DataShape | None, like: tuple[str, str] | Signature | None, most: int) -> None:
    if not task.strip() and data is None and like is None:
        raise SalverError("INVALID_PARAMETER", "nothing is asked for", "give a task, data, a version, or a signature")
    if not 1 <= most <= _MOST:
        raise SalverError("INVALID_PARAMETER", f"the limit is {most}", f"use 1 to {_MOST}")
    if data is None:
        return
    if len(data.columns) > MOST_COLUMNS or len(data.values) > MOST_VALUES:
        raise SalverError(
            "INVALID_PARAMETER",
            f"the data have {len(data.columns)} columns and {len(data.values)} values of the target",
            f"send at most {MOST_COLUMNS} and {MOST_VALUES}",
        )
    names = [column.name for column in data.columns]
    if data.target and data.target not in names:
        remedy = f"{did_you_mean(data.target, names)} its columns are {listed(names)}".strip()
        raise SalverError("INVALID_PARAMETER", f"the data has no column {data.target[:80]!r}", remedy)


def _offers(connection: Connection) -> list[Offer]:
    query = (
        select(versions.c.manifest, metadata.c.document, stages.c.stage)
        .join_from(
            versions,
            metadata,
            and_(metadata.c.model == versions.c.model, metadata.c.version == versions.c.version),
            isouter=True,
        )
        .join(stages, and_(stages.c.model == versions.c.model, stages.c.version == versions.c.version), isouter=True)
        .where(MAY_SERVE)
    )
    failed = failed_suites(connection)
    found = []
    for manifest_text, document, stage in connection.execute(query):
        manifest = VersionManifest.parse(manifest_text)
        said = msgspec.json.decode(document, type=Description) if document else Description()
        suites = failed.get((manifest.model, manifest.version), ())
        found.append(Offer(manifest, said, stage or Stage.DEVELOPMENT.value, said.metrics, suites))
    return found
