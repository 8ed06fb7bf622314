"""What the registry counts on in the artifact store."""

from __future__ import annotations

from collections import defaultdict

import msgspec
from sqlalchemy import Connection, select

from salver.storage.registry_schema import deletions
from salver.storage.schema import versions

__all__ = ["referenced_digests", "references_of_digests"]


class _File(msgspec.Struct):
    sha256: str


class _Manifest(msgspec.Struct):
    """Of a manifest, what it keeps in the store: older and newer ones say the rest otherwise."""

    files: tuple[_File, ...]


def referenced_digests(connection: Connection, deleted_until_s: float) -> frozenset[str]:
    """The digests of all files of all versions, whatever their stage, but those that were deleted until then.

    That is everything: jobs, deployments, aliases and holds name versions, and what they name is not deleted. What
    began to read a version before it was deleted has the time since then to finish.
    """
    return frozenset(references_of_digests(connection, deleted_until_s))


def references_of_digests(connection: Connection, deleted_until_s: float = -1.0) -> dict[str, tuple[str, ...]]:
    """NAME@VERSION of the versions that a file belongs to, by its digest."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    query = select(versions.c.model, versions.c.version, versions.c.manifest)
    same = (deletions.c.model == versions.c.model) & (deletions.c.version == versions.c.version)
    query = query.where(~select(deletions.c.model).where(same, deletions.c.deleted_s <= deleted_until_s).exists())
    for model, version, manifest in connection.execute(query.order_by(versions.c.model, versions.c.ordinal)):
        for sha256 in {file.sha256 for file in msgspec.json.decode(manifest, type=_Manifest).files}:
            found[sha256].append(f"{model}@{version}")
    return {sha256: tuple(references) for sha256, references in found.items()}
