"""Versions whose files are given up for good. Everything else of them stays: number, digests, proofs, decisions, use.

A deletion is a row. The files go with the next collection of the store that finds them unreferenced
(`salver.registry.references`), unless another version has the same.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.reasons import checked_why
from salver.protocol.stages import OUT
from salver.registry.catalog import find_version
from salver.registry.description_rows import aliases_of
from salver.registry.holds import require_not_held
from salver.registry.in_use import endpoints_of
from salver.registry.stages import VersionStage, stage_of
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.journal import Journal, occasion
from salver.storage.registry_schema import deletions

__all__ = ["Deletion", "Deletions", "deletion_of", "require_not_deleted"]


class Deletion(msgspec.Struct, frozen=True):
    """That the files of a version are given up, and why."""

    model: str
    version: str
    why: str
    deleted_by: str
    deleted_s: float

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Deletions:
    """The deletions in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def delete(self, principal: Principal, model: str, version: str, why: str) -> Deletion:
        """Give up the files of an archived or rejected version for good; one that is deleted already stays as it is.

        Raises PERMISSION_DENIED, NOT_FOUND, INVALID_PARAMETER without a reason, CONFLICT for a version in another
        stage, deployed, or with an alias, REFUSED_BY_POLICY for one that is held.
        """
        require(principal, Operation.DELETE)
        why = checked_why(why)
        if not why:
            raise SalverError("INVALID_PARAMETER", "a deletion needs a reason", "say it with --why")
        with occasion(why=why), self._database.begin() as connection:
            find_version(connection, model, version)
            known = deletion_of(connection, model, version)
            if known is not None:
                return known
            _require_unused(connection, stage_of(connection, model, version))
            made = Deletion(model, version, why, principal.name, self._clock.wall_s())
            connection.execute(insert(deletions).values(msgspec.structs.asdict(made)))
            self._journal.append(
                connection,
                actor=principal.name,
                action="delete",
                subject=made.reference,
                details={"why": why},
                after=made,
            )
        return made

    def list(self) -> tuple[Deletion, ...]:
        """All of them, by model and version."""
        query = select(deletions).order_by(deletions.c.model, deletions.c.version)
        with self._database.read() as connection:
            return tuple(Deletion(**row._mapping) for row in connection.execute(query))


def deletion_of(connection: Connection, model: str, version: str) -> Deletion | None:
    """That a version was deleted, if it was."""
    query = select(deletions).where(deletions.c.model == model, deletions.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else Deletion(**row._mapping)


def require_not_deleted(connection: Connection, model: str, version: str) -> None:
    """Raise REFUSED_BY_POLICY, saying why, for a version that was deleted."""
    deleted = deletion_of(connection, model, version)
    if deleted is not None:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{deleted.reference} was deleted by {deleted.deleted_by}: {deleted.why}",
            "its files are given up; use another version, or register them again under a new number",
        )


def _require_unused(connection: Connection, here: VersionStage) -> None:
    require_not_held(connection, here.model, here.version)
    if here.stage not in OUT:
        raise SalverError(
            "CONFLICT",
            f"{here.reference} is in {here.stage}; deleted is what is archived or rejected",
            f"salver promote {here.reference} archived",
        )
    uses = [f"it is deployed as {endpoint}" for endpoint in endpoints_of(connection, here)]
    aliases = aliases_of(connection, here.model)
    uses += [f"its alias is {each.alias}" for each in aliases if each.version == here.version]
    if uses:
        raise SalverError("CONFLICT", f"{here.reference} is in use: {', '.join(uses)}", "undeploy it, move the aliases")
