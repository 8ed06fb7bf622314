"""Reading what filters look at and what lists show: many versions at once, and of each no more than is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, func, null, select, tuple_

from salver.protocol.description import Description
from salver.registry.fields import ManifestFacts, Source, VersionFacts
from salver.registry.filters import Filter
from salver.storage.registry_schema import aliases, holds, metadata, stages, tags
from salver.storage.schema import deployments, versions

__all__ = ["Key", "fulfilling", "matching", "read_pages"]

Key = tuple[str, str]
"""A model and a version of it."""
_MANIFEST: Final = msgspec.json.Decoder(ManifestFacts)
_DESCRIPTION: Final = msgspec.json.Decoder(Description)
_NOTHING_SAID: Final = Description()
_AT_ONCE: Final = 400
"""Keys in one query: databases bound the number of parameters."""
Where = ColumnElement[bool]
EVERY_SOURCE: Final = ~Source.VERSIONS


def matching(connection: Connection, wanted: Filter, where: Where) -> list[Key]:
    """The versions that a filter lets through, the newest registration first; `where` lets through no fewer.

    Each version is looked at and forgotten, and of what is said of it only that is read which the filter names: ten
    thousand whole descriptions at a time would cost more than reading them.
    """
    source = wanted.source
    said = _decoder({name.partition(".")[0] for name in wanted.names})
    tagged = [name.removeprefix("tags.") for name in wanted.names if name.startswith("tags.")]
    beside = [
        (add, _by_key(connection, select(table).where(tags.c.name.in_(tagged)) if table is tags else select(table)))
        for part, table, add in _PARTS
        if part in source
    ]
    found = []
    for row in connection.execute(_query(source).where(where)):
        facts = _facts_of(row, said)
        for add, rows in beside:
            for other in rows.get((facts.model, facts.version), ()):
                add(facts, other)
        if wanted.holds(facts):
            found.append((-facts.registered_s, facts.model, -facts.ordinal, facts.version))
    return [(model, version) for _, model, _, version in sorted(found)]


def fulfilling(connection: Connection, where: Where, most: int | None) -> tuple[list[Key], int]:
    """The versions that fulfil a condition, the newest registration first, at most so many; and how many there are."""
    columns = versions.c
    newest = (columns.created_s.desc(), columns.model, columns.ordinal.desc())
    query = select(columns.model, columns.version).where(where).order_by(*newest).limit(most)
    found = [(model, version) for model, version in connection.execute(query)]
    return found, connection.execute(select(func.count()).select_from(versions).where(where)).scalar_one()


def read_pages(connection: Connection, keys: Collection[Key]) -> dict[Key, VersionFacts]:
    """Everything about some versions."""
    found: dict[Key, VersionFacts] = {}
    for part in _in_parts(keys):
        query = _query(EVERY_SOURCE).where(tuple_(versions.c.model, versions.c.version).in_(part))
        for row in connection.execute(query):
            facts = _facts_of(row, _DESCRIPTION)
            found[facts.model, facts.version] = facts
        for _, table, add in _PARTS:
            for row in connection.execute(select(table).where(tuple_(table.c.model, table.c.version).in_(part))):
                add(found[row.model, row.version], row)
    return found


def _decoder(named: Collection[str]) -> msgspec.json.Decoder[Any]:
    """Reads of a description no more than these fields."""
    fields = []
    for each in msgspec.structs.fields(Description):
        if each.name in named:
            factory = each.default_factory
            default = (
                msgspec.field(default=each.default)
                if factory is msgspec.NODEFAULT
                else msgspec.field(default_factory=factory)
            )
            fields.append((each.name, each.type, default))
    return msgspec.json.Decoder(msgspec.defstruct("Said", fields, gc=False))


def _query(source: Source) -> Select[Any]:
    columns = versions.c
    query = select(
        columns.model,
        columns.version,
        columns.ordinal,
        columns.digest,
        columns.format,
        columns.kind,
        columns.created_s,
        columns.created_by,
        columns.manifest if Source.MANIFEST in source else null(),
        metadata.c.document if Source.DESCRIPTION in source else null(),
    )
    if Source.DESCRIPTION not in source:
        return query
    return query.join_from(
        versions, metadata, and_(metadata.c.model == columns.model, metadata.c.version == columns.version), isouter=True
    )


def _facts_of(row: Any, said: msgspec.json.Decoder[Any]) -> VersionFacts:
    known: list[Any] = list(row)
    manifest, document = known[8:]
    known[8] = _MANIFEST.decode(manifest) if manifest is not None else None
    known[9] = said.decode(document) if document is not None else _NOTHING_SAID
    return VersionFacts(*known)


def _by_key(connection: Connection, query: Select[Any]) -> dict[Key, list[Any]]:
    found: dict[Key, list[Any]] = {}
    for row in connection.execute(query):
        found.setdefault((row.model, row.version), []).append(row)
    return found


def _in_parts(keys: Iterable[Key]) -> Iterator[list[Key]]:
    every = list(keys)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]


def _add_tag(facts: VersionFacts, row: Any) -> None:
    facts.tags[row.name] = row.value


def _add_alias(facts: VersionFacts, row: Any) -> None:
    facts.aliases = (*facts.aliases, row.alias)


def _add_endpoint(facts: VersionFacts, row: Any) -> None:
    facts.endpoints = (*facts.endpoints, row.endpoint)


def _add_stage(facts: VersionFacts, row: Any) -> None:
    facts.stage, facts.emergency = row.stage, bool(row.emergency)


def _add_hold(facts: VersionFacts, _: Any) -> None:
    facts.held = True


_PARTS: Final = (
    (Source.TAGS, tags, _add_tag),
    (Source.ALIASES, aliases, _add_alias),
    (Source.STAGES, stages, _add_stage),
    (Source.DEPLOYMENTS, deployments, _add_endpoint),
    (Source.HOLDS, holds, _add_hold),
)
