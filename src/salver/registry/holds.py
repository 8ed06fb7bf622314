"""Legal holds: versions that are kept as evidence. They are neither retired nor archived while they are held."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.reasons import checked_why
from salver.registry.catalog import find_version
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database, raise_revision
from salver.storage.journal import Journal, occasion
from salver.storage.registry_schema import holds, retirements

__all__ = ["Hold", "Holds", "hold_of", "require_not_held"]


class Hold(msgspec.Struct, frozen=True):
    """That a version is held, and why."""

    model: str
    version: str
    why: str
    held_by: str
    held_s: float

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Holds:
    """The holds in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def hold(self, principal: Principal, model: str, version: str, why: str) -> Hold:
        """Hold a version; a proposal to retire it is void. One that is held already stays held as it was.

        Raises PERMISSION_DENIED, NOT_FOUND, INVALID_PARAMETER without a reason.
        """
        require(principal, Operation.HOLD)
        why = checked_why(why)
        if not why:
            raise SalverError("INVALID_PARAMETER", "a hold needs a reason", "say it with --why")
        with occasion(why=why), self._database.begin() as connection:
            find_version(connection, model, version)
            known = hold_of(connection, model, version)
            if known is not None:
                return known
            made = Hold(model, version, why, principal.name, self._clock.wall_s())
            connection.execute(insert(holds).values(msgspec.structs.asdict(made)))
            proposed = (retirements.c.model == model) & (retirements.c.version == version)
            cancelled = connection.execute(delete(retirements).where(proposed)).rowcount > 0
            if cancelled:
                raise_revision(connection)
            details = {"why": why, "cancelled_retirement": cancelled}
            self._record(connection, principal, "hold", made.reference, details, after=made)
        return made

    def release(self, principal: Principal, model: str, version: str) -> Hold:
        """Give a version free and return what the hold was; NOT_FOUND for one that is not held."""
        require(principal, Operation.HOLD)
        with self._database.begin() as connection:
            known = hold_of(connection, model, version)
            if known is None:
                find_version(connection, model, version)
                raise SalverError("NOT_FOUND", f"{model}@{version} is not held", "`salver hold` lists what is")
            connection.execute(delete(holds).where(holds.c.model == model, holds.c.version == version))
            details = {"held_by": known.held_by}
            self._record(connection, principal, "release_hold", known.reference, details, before=known)
        return known

    def list(self) -> tuple[Hold, ...]:
        """All holds, by model and version."""
        query = select(holds).order_by(holds.c.model, holds.c.version)
        with self._database.read() as connection:
            return tuple(Hold(**row._mapping) for row in connection.execute(query))

    def _record(
        self,
        connection: Connection,
        principal: Principal,
        action: JournalAction,
        subject: str,
        details: Any,
        **changed: Any,
    ) -> None:
        self._journal.append(
            connection, actor=principal.name, action=action, subject=subject, details=details, **changed
        )


def hold_of(connection: Connection, model: str, version: str) -> Hold | None:
    """The hold on a version, if there is one."""
    query = select(holds).where(holds.c.model == model, holds.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else Hold(**row._mapping)


def require_not_held(connection: Connection, model: str, version: str) -> None:
    """Raise REFUSED_BY_POLICY, saying why, for a version that is held."""
    held = hold_of(connection, model, version)
    if held is not None:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{held.reference} is held by {held.held_by}: {held.why}",
            "release it first: salver hold NAME@VERSION --release",
        )
