"""Who asked which version, when and how often: what the processes that serve have counted, kept by days."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, func, insert, select, update

from salver.clock import DAY_S
from salver.protocol.usage import Asking
from salver.storage.database import Database
from salver.storage.registry_schema import usage

__all__ = ["Usage", "VersionUse", "use_of"]


class VersionUse(msgspec.Struct, frozen=True):
    """What one client has asked of one version, over all days."""

    model: str
    version: str
    endpoint: str
    client: str
    requests: int
    first_s: float
    last_s: float

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class Usage:
    """The counts in one database. They are no part of the journal: nobody decided them."""

    __slots__ = ("_database",)

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, askings: Iterable[Asking]) -> None:
        """Add what was counted since the last report; what is reported twice counts twice."""
        with self._database.begin() as connection:
            for asking in askings:
                _add(connection, asking)

    def of(self, model: str, version: str | None = None) -> tuple[VersionUse, ...]:
        """Who asked a model, or one version of it; nothing where nobody did."""
        with self._database.read() as connection:
            return use_of(connection, model, version)


def use_of(connection: Connection, model: str | None = None, version: str | None = None) -> tuple[VersionUse, ...]:
    """`Usage.of` within a transaction that is already open; without a model, of all."""
    keys = (usage.c.model, usage.c.version, usage.c.endpoint, usage.c.client)
    query = (
        select(*keys, func.sum(usage.c.requests), func.min(usage.c.first_s), func.max(usage.c.last_s))
        .group_by(*keys)
        .order_by(*keys)
    )
    if model is not None:
        query = query.where(usage.c.model == model)
    if version is not None:
        query = query.where(usage.c.version == version)
    return tuple(VersionUse(*row[:4], int(row[4]), row[5], row[6]) for row in connection.execute(query))


def _add(connection: Connection, asking: Asking) -> None:
    day = int(asking.last_s // DAY_S)
    same = (
        (usage.c.model == asking.model)
        & (usage.c.version == asking.version)
        & (usage.c.endpoint == asking.endpoint)
        & (usage.c.client == asking.client)
        & (usage.c.day == day)
    )
    known = connection.execute(
        update(usage).where(same).values(requests=usage.c.requests + asking.requests, last_s=asking.last_s)
    )
    if known.rowcount == 0:
        row = msgspec.structs.asdict(asking) | {"day": day, "first_s": asking.last_s}
        connection.execute(insert(usage).values(row))
