"""Reading and writing what is said of versions, within transactions that others have opened and record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.registry.card_text import drop_outdated
from salver.registry.lineage_rows import write_lineage
from salver.registry.terms import index_terms
from salver.storage.registry_schema import aliases, metadata, tags

__all__ = ["Alias", "AliasMoved", "aliases_of", "description_of", "tags_of", "write_description", "write_tags"]

_MOST_TAGS: Final = 100
_TAG: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_LONGEST_TAG: Final = 1000


class Alias(msgspec.Struct, frozen=True):
    """A name that stands for one version of a model, until it is moved."""

    model: str
    alias: str
    version: str
    changed_s: float
    changed_by: str


class AliasMoved(msgspec.Struct, frozen=True):
    """What an alias stood for, and what it stands for now; None where that is nothing."""

    before: Alias | None
    after: Alias | None


def description_of(connection: Connection, model: str, version: str) -> Description:
    """What is said of a version; an empty description where nothing is."""
    query = select(metadata.c.document).where((metadata.c.model == model) & (metadata.c.version == version))
    text = connection.execute(query).scalar_one_or_none()
    return Description() if text is None else msgspec.json.decode(text, type=Description)


def tags_of(connection: Connection, model: str, version: str) -> dict[str, str]:
    """The tags of a version by name."""
    query = select(tags.c.name, tags.c.value).where((tags.c.model == model) & (tags.c.version == version))
    return {row.name: row.value for row in connection.execute(query.order_by(tags.c.name))}


def aliases_of(connection: Connection, model: str) -> tuple[Alias, ...]:
    """The aliases of a model by name."""
    query = select(aliases).where(aliases.c.model == model).order_by(aliases.c.alias)
    return tuple(Alias(**row._mapping) for row in connection.execute(query))


def write_description(
    connection: Connection, manifest: VersionManifest, description: Description, actor: str, now_s: float
) -> None:
    """Replace the description of a version, the words it is found by and its lineage. The caller records it."""
    values = {"document": msgspec.json.encode(description).decode(), "changed_s": now_s, "changed_by": actor}
    of_version = (metadata.c.model == manifest.model) & (metadata.c.version == manifest.version)
    if connection.execute(update(metadata).where(of_version).values(values)).rowcount == 0:
        connection.execute(insert(metadata).values(model=manifest.model, version=manifest.version, **values))
    write_lineage(connection, manifest, description)
    _index(connection, manifest, description, tags_of(connection, manifest.model, manifest.version))


def write_tags(connection: Connection, manifest: VersionManifest, wanted: Mapping[str, str]) -> None:
    """Replace the tags of a version; raises INVALID_PARAMETER for one that cannot be. The caller records it."""
    if len(wanted) > _MOST_TAGS:
        raise SalverError(
            "INVALID_PARAMETER", f"{manifest.reference} would have {len(wanted)} tags", f"use {_MOST_TAGS}"
        )
    for name, value in wanted.items():
        if _TAG.fullmatch(name) is None or len(value) > _LONGEST_TAG or not value.isprintable():
            raise SalverError(
                "INVALID_PARAMETER",
                f"tag {name[:140]!r} is {value[:80]!r}",
                f"names are 1-128 letters, digits, '.', '_', '/', '-'; values printable, to {_LONGEST_TAG} characters",
            )
    connection.execute(delete(tags).where((tags.c.model == manifest.model) & (tags.c.version == manifest.version)))
    for name, value in wanted.items():
        connection.execute(insert(tags).values(model=manifest.model, version=manifest.version, name=name, value=value))
    _index(connection, manifest, description_of(connection, manifest.model, manifest.version), wanted)


def _index(
    connection: Connection, manifest: VersionManifest, description: Description, tagged: Mapping[str, str]
) -> None:
    """Have the version found by what is now said of it."""
    index_terms(connection, manifest, description, tagged)
    drop_outdated(connection, manifest, description, tagged)
