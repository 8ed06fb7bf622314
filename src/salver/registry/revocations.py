"""Versions that must not be loaded any more, and why."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.reasons import checked_why
from salver.protocol.tables import Revocation
from salver.registry.catalog import find_version
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database, raise_revision
from salver.storage.journal import Journal
from salver.storage.registry_schema import revocations

__all__ = ["Revocations", "read_revocations", "require_unrevoked", "revocation_of"]


class Revocations:
    """The revocation list in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def list(self) -> tuple[Revocation, ...]:
        """All of them, by model and version."""
        with self._database.read() as connection:
            return read_revocations(connection)

    def revoke(self, principal: Principal, model: str, version: str, why: str) -> Revocation:
        """Have a version loaded nowhere and never again; what is loaded already answers until it is replaced.

        Raises PERMISSION_DENIED, NOT_FOUND, INVALID_PARAMETER without a reason, ALREADY_EXISTS.
        """
        require(principal, Operation.DEPLOY)
        why = checked_why(why)
        if not why:
            raise SalverError("INVALID_PARAMETER", "what is wrong with it is not said", "say it with --why")
        with self._database.begin() as connection:
            find_version(connection, model, version)
            known = revocation_of(connection, model, version)
            if known is not None:
                raise SalverError(
                    "ALREADY_EXISTS",
                    f"{known.reference} is revoked already: {known.why}",
                    f"salver show {known.reference}",
                )
            revoked = Revocation(model, version, why, principal.name, self._clock.wall_s())
            connection.execute(
                insert(revocations).values(
                    model=model,
                    version=version,
                    why=revoked.why,
                    revoked_by=revoked.revoked_by,
                    revoked_s=revoked.revoked_s,
                )
            )
            raise_revision(connection)
            self._journal.append(
                connection,
                actor=principal.name,
                action="revoke",
                subject=revoked.reference,
                details={"why": revoked.why},
                after=revoked,
            )
        return revoked


def read_revocations(connection: Connection) -> tuple[Revocation, ...]:
    """The list within a transaction that is already open."""
    query = select(revocations).order_by(revocations.c.model, revocations.c.version)
    return tuple(Revocation(**row._mapping) for row in connection.execute(query))


def require_unrevoked(connection: Connection, model: str, version: str) -> None:
    """Raise REFUSED_BY_POLICY, saying why, for a version that was revoked."""
    revoked = revocation_of(connection, model, version)
    if revoked is not None:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{revoked.reference} was revoked by {revoked.revoked_by}: {revoked.why}",
            "take another version",
        )


def revocation_of(connection: Connection, model: str, version: str) -> Revocation | None:
    """That a version was revoked, if it was."""
    query = select(revocations).where(revocations.c.model == model, revocations.c.version == version)
    row = connection.execute(query).one_or_none()
    return None if row is None else Revocation(**row._mapping)
