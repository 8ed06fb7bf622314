"""Reading what filters look at and what lists show: many versions at once, and of each no more than is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Table, select, tuple_

from salver.protocol.description import Description
from salver.registry.fields import ManifestFacts, Source, VersionFacts
from salver.storage.registry_schema import aliases, holds, metadata, stages, tags
from salver.storage.schema import deployments, versions

__all__ = ["Key", "read_facts"]

Key = tuple[str, str]
"""A model and a version of it."""
_MANIFEST: Final = msgspec.json.Decoder(ManifestFacts)
_DESCRIPTION: Final = msgspec.json.Decoder(Description)
_NOTHING_SAID: Final = Description()
_AT_ONCE: Final = 400
"""Keys in one query: databases bound the number of parameters."""


def read_facts(connection: Connection, source: Source, only: Collection[Key] | None = None) -> dict[Key, VersionFacts]:
    """The facts of all versions, or of some, the newest registration first; of `source` and of `versions`."""
    found = {facts_key(facts): facts for facts in _versions(connection, source, only)}
    for part, table, add in _PARTS:
        if part in source:
            for row in _rows(connection, table, only):
                facts = found.get((row.model, row.version))
                if facts is not None:
                    add(facts, row)
    return found


def facts_key(facts: VersionFacts) -> Key:
    """Which version it is."""
    return facts.model, facts.version


def _versions(connection: Connection, source: Source, only: Collection[Key] | None) -> list[VersionFacts]:
    columns = versions.c
    wanted = [
        columns.model,
        columns.version,
        columns.ordinal,
        columns.digest,
        columns.format,
        columns.kind,
        columns.created_s,
        columns.created_by,
    ]
    decode = Source.MANIFEST in source
    if decode:
        wanted.append(columns.manifest)
    found = []
    for row in _selected(connection, versions, wanted, only):
        manifest = _MANIFEST.decode(row[8]) if decode else None
        found.append(VersionFacts(*row[:8], manifest, _NOTHING_SAID))
    found.sort(key=lambda facts: (-facts.registered_s, facts.model, -facts.ordinal))
    return found


def _rows(connection: Connection, table: Table, only: Collection[Key] | None) -> Iterator[Any]:
    return _selected(connection, table, list(table.c), only)


def _selected(connection: Connection, table: Table, columns: list[Any], only: Collection[Key] | None) -> Iterator[Any]:
    query = select(*columns)
    if only is None:
        yield from connection.execute(query)
        return
    for keys in _in_parts(only):
        yield from connection.execute(query.where(tuple_(table.c.model, table.c.version).in_(keys)))


def _in_parts(keys: Iterable[Key]) -> Iterator[list[Key]]:
    every = list(keys)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]


def _add_description(facts: VersionFacts, row: Any) -> None:
    facts.description = _DESCRIPTION.decode(row.document)


def _add_tag(facts: VersionFacts, row: Any) -> None:
    facts.tags[row.name] = row.value


def _add_stage(facts: VersionFacts, row: Any) -> None:
    facts.stage, facts.emergency = row.stage, bool(row.emergency)


def _add_hold(facts: VersionFacts, _: Any) -> None:
    facts.held = True


_PARTS: Final = (
    (Source.DESCRIPTION, metadata, _add_description),
    (Source.TAGS, tags, _add_tag),
    (Source.ALIASES, aliases, lambda facts, row: facts.aliases.append(row.alias)),
    (Source.STAGES, stages, _add_stage),
    (Source.DEPLOYMENTS, deployments, lambda facts, row: facts.endpoints.append(row.endpoint)),
    (Source.HOLDS, holds, _add_hold),
)
