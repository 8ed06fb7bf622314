"""What is said of versions beside what they are: descriptions, tags, and aliases that move from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert

from salver.clock import Clock
from salver.protocol.description import Description, merged
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.names import check_name
from salver.registry.catalog import find_version
from salver.registry.description_rows import (
    Alias,
    AliasMoved,
    aliases_of,
    description_of,
    tags_of,
    write_description,
    write_tags,
)
from salver.registry.resolution import LATEST, STAGE_NAMES
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.journal import Journal
from salver.storage.registry_schema import aliases

__all__ = ["Descriptions"]

_MOST_ALIASES: Final = 100


class Descriptions:
    """The descriptions in one database. Each change is one transaction with its record in the journal."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def describe(self, principal: Principal, model: str, version: str, changes: Mapping[str, Any]) -> Description:
        """Change the description of a version by a merge patch; returns what it is now.

        Raises PERMISSION_DENIED, NOT_FOUND, INVALID_PARAMETER; then nothing has changed.
        """
        require(principal, Operation.REGISTER)
        with self._database.begin() as connection:
            manifest = find_version(connection, model, version)
            before = description_of(connection, model, version)
            after = merged(before, dict(changes))
            if after != before:
                said = msgspec.structs.asdict(after)
                write_description(connection, manifest, after, principal.name, self._clock.wall_s())
                self._record(
                    connection,
                    principal,
                    "describe",
                    manifest.reference,
                    {"changed": [name for name, value in said.items() if value != getattr(before, name)]},
                    before=before,
                    after=after,
                )
        return after

    def tag(self, principal: Principal, model: str, version: str, changes: Mapping[str, str | None]) -> dict[str, str]:
        """Set tags, or remove those given as None; returns all tags of the version."""
        require(principal, Operation.REGISTER)
        with self._database.begin() as connection:
            manifest = find_version(connection, model, version)
            before = tags_of(connection, model, version)
            after = {name: value for name, value in (before | dict(changes)).items() if value is not None}
            if after != before:
                write_tags(connection, manifest, after)
                # Not what was asked for: a name to remove that is not there may be anything.
                changed = {name: after.get(name) for name in changes if after.get(name) != before.get(name)}
                details = {"tags": changed}
                self._record(connection, principal, "tag", manifest.reference, details, before=before, after=after)
        return after

    def alias(
        self, principal: Principal, model: str, alias: str, version: str | None, if_version: str | None = None
    ) -> AliasMoved:
        """Let `alias` stand for a version, or for none.

        With `if_version` only if it stands for that one now ("" for none); else CONFLICT. Aliases are what serving is
        steered by, so whoever moves one must be allowed to deploy.
        """
        require(principal, Operation.DEPLOY)
        _check_alias(alias)
        with self._database.begin() as connection:
            known = {each.alias: each for each in aliases_of(connection, model)}
            before = known.get(alias)
            if if_version is not None and (before.version if before else "") != if_version:
                stands = f"stands for {before.version}" if before else "stands for nothing"
                raise SalverError(
                    "CONFLICT",
                    f"alias {alias!r} of {model!r} {stands}, not for {if_version or 'nothing'}",
                    f"somebody has moved it: look again (salver alias list {model}) and decide anew",
                )
            if version is not None:
                find_version(connection, model, version)
                if before is None and len(known) >= _MOST_ALIASES:
                    raise SalverError("QUEUE_FULL", f"{model!r} has {_MOST_ALIASES} aliases, the most", "remove some")
            if (before.version if before else None) == version:
                return AliasMoved(before, before)
            return self._move(connection, principal, model, alias, before, version)

    def _move(
        self,
        connection: Connection,
        principal: Principal,
        model: str,
        alias: str,
        before: Alias | None,
        version: str | None,
    ) -> AliasMoved:
        connection.execute(delete(aliases).where((aliases.c.model == model) & (aliases.c.alias == alias)))
        after = None
        if version is not None:
            after = Alias(model, alias, version, self._clock.wall_s(), principal.name)
            connection.execute(insert(aliases).values(msgspec.structs.asdict(after)))
        details = {"alias": alias, "from": before.version if before else None, "to": version}
        self._record(connection, principal, "alias", model, details, before=before, after=after)
        return AliasMoved(before, after)

    def _record(
        self,
        connection: Connection,
        principal: Principal,
        action: JournalAction,
        subject: str,
        details: dict[str, Any],
        *,
        before: object,
        after: object,
    ) -> None:
        self._journal.append(
            connection,
            actor=principal.name,
            action=action,
            subject=subject,
            details=details,
            before=before,
            after=after,
        )


def _check_alias(alias: str) -> None:
    check_name(alias, "alias")
    if alias in STAGE_NAMES or alias == LATEST or alias[0].isdigit():
        raise SalverError(
            "INVALID_NAME",
            f"alias {alias!r} could be taken for a stage, a version or the latest one",
            "call it something else, such as champion",
        )
