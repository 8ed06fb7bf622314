"""Everything that is known of a version, on one page."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.attestation import Attestation, attestation_of
from salver.registry.catalog import require_model
from salver.registry.deletions import deletion_of, require_not_deleted
from salver.registry.description_rows import Alias, aliases_of, description_of, tags_of
from salver.registry.holds import hold_of
from salver.registry.in_use import endpoints_of
from salver.registry.resolution import resolve
from salver.registry.revocations import revocation_of
from salver.registry.stages import stage_of
from salver.storage.database import Database
from salver.storage.schema import versions

__all__ = ["Pages", "VersionPage"]


class VersionPage(msgspec.Struct, frozen=True):
    """One version: what it is, what is said of it, and where it stands."""

    manifest: VersionManifest
    registered_s: float
    registered_by: str
    stage: Stage
    stage_since_s: float
    emergency: bool
    """It once came into production past its gates."""
    held: str
    """Why it is kept as evidence; empty where it is not."""
    aliases: tuple[str, ...]
    tags: dict[str, str]
    description: Description
    endpoints: tuple[str, ...]
    """Where it is deployed."""
    deleted: str = ""
    """Why its files were given up; empty while they are there."""
    revoked: str = ""
    """Why it is loaded nowhere any more; empty while it may be."""


class Pages:
    """What is known of the versions in one database, put together for readers."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, model: str, wanted: str | None = None) -> VersionPage:
        """The page of the version that `wanted` names (see `salver.registry.resolution`); raises NOT_FOUND."""
        with self._database.read() as connection:
            return page_of(connection, resolve(connection, model, wanted))

    def manifest(self, model: str, wanted: str | None) -> VersionManifest:
        """The version that `wanted` names; raises NOT_FOUND."""
        with self._database.read() as connection:
            return resolve(connection, model, wanted)

    def number_of(self, model: str, wanted: str | None) -> str:
        """The number of the version that `wanted` names; raises NOT_FOUND."""
        return self.manifest(model, wanted).version

    def attestation(self, model: str, wanted: str | None) -> Attestation:
        """The signed manifest of the version that `wanted` names, to have its files read.

        Raises NOT_FOUND, REFUSED_BY_POLICY for one whose files are given up.
        """
        with self._database.read() as connection:
            manifest = resolve(connection, model, wanted)
            require_not_deleted(connection, model, manifest.version)
            found = attestation_of(connection, model, manifest.version)
        if found is None:
            raise SalverError(
                "NOT_FOUND", f"{manifest.reference} is not signed", "register it again under another number"
            )
        return found

    def aliases(self, model: str) -> tuple[Alias, ...]:
        """The aliases of a model; raises NOT_FOUND for an unknown one."""
        with self._database.read() as connection:
            found = aliases_of(connection, model)
            if not found:
                require_model(connection, model)
            return found


def page_of(connection: Connection, manifest: VersionManifest) -> VersionPage:
    """The page of a version within a transaction that is already open."""
    model, version = manifest.model, manifest.version
    registered = connection.execute(
        select(versions.c.created_s, versions.c.created_by).where(
            (versions.c.model == model) & (versions.c.version == version)
        )
    ).one()
    here = stage_of(connection, model, version)
    held, deleted = hold_of(connection, model, version), deletion_of(connection, model, version)
    revoked = revocation_of(connection, model, version)
    return VersionPage(
        manifest,
        registered.created_s,
        registered.created_by,
        here.stage,
        registered.created_s if here.since_s is None else here.since_s,
        here.emergency,
        held.why if held else "",
        tuple(each.alias for each in aliases_of(connection, model) if each.version == version),
        tags_of(connection, model, version),
        description_of(connection, model, version),
        endpoints_of(connection, here),
        deleted.why if deleted else "",
        revoked.why if revoked else "",
    )
