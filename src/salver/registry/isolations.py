"""Versions that crashed or hung a server process: which, why, and giving one another chance."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.protocol.names import split_reference
from salver.registry.resolution import resolve
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.isolation import Isolation, end_isolation, read_isolated
from salver.storage.journal import Journal
from salver.storage.schema import versions

__all__ = ["IsolatedVersion", "Isolations"]


class IsolatedVersion(msgspec.Struct, frozen=True):
    """An artifact that gets workers under placement `auto`, whichever name it is registered under."""

    digest: str
    references: tuple[str, ...]
    """NAME@VERSION of all versions that are this artifact."""
    cause: str
    """`crashed` or `hung`: what it did to the server process."""
    at_s: float


class Isolations:
    """What is isolated in one home."""

    __slots__ = ("_database", "_home", "_journal")

    def __init__(self, home: Home, database: Database, journal: Journal) -> None:
        self._home = home
        self._database = database
        self._journal = journal

    def list(self) -> tuple[IsolatedVersion, ...]:
        """All isolated artifacts, by their names; raises CORRUPT_ARTIFACT where the file is damaged."""
        isolated = read_isolated(self._home)
        if not isolated:
            return ()
        with self._database.read() as connection:
            found = _references(connection, isolated)
        rows = [_row(digest, found.get(digest, ()), isolation) for digest, isolation in isolated.items()]
        return tuple(sorted(rows, key=lambda row: (row.references, row.digest)))

    def end(self, principal: Principal, reference: str) -> IsolatedVersion:
        """End the isolation of NAME@VERSION and return what it was.

        From its next load on `auto` decides about it as about any other. Raises
        PERMISSION_DENIED, NOT_FOUND for what is not registered or not isolated.
        """
        require(principal, Operation.DEPLOY)
        model, wanted = split_reference(reference)
        isolated = read_isolated(self._home)
        with self._database.begin() as connection:
            manifest = resolve(connection, model, wanted)
            isolation = isolated.get(manifest.digest)
            if isolation is None:
                raise SalverError(
                    "NOT_FOUND", f"{manifest.reference} is not isolated", "`salver isolated` lists what is"
                )
            ended = _row(manifest.digest, _references(connection, [manifest.digest])[manifest.digest], isolation)
            self._journal.append(
                connection,
                actor=principal.name,
                action="end_isolation",
                subject=manifest.reference,
                details={"before": msgspec.to_builtins(ended)},
                before=ended,
            )
            # Last, so that a file that cannot be written takes the record with it.
            end_isolation(self._home, manifest.digest)
        return ended


def _row(digest: str, references: tuple[str, ...], isolation: Isolation) -> IsolatedVersion:
    return IsolatedVersion(digest, references, isolation.cause.value, isolation.at_s)


def _references(connection: Connection, digests: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """NAME@VERSION of all versions with these digests, by digest."""
    query = select(versions.c.digest, versions.c.model, versions.c.version).order_by(
        versions.c.model, versions.c.ordinal
    )
    found: dict[str, tuple[str, ...]] = {}
    for digest, model, version in connection.execute(query.where(versions.c.digest.in_(digests))):
        found[digest] = (*found.get(digest, ()), f"{model}@{version}")
    return found
