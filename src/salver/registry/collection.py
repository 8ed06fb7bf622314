"""Garbage collection of the artifact store: what no version refers to goes, and what only deleted ones do.

A registration stores its files first and then writes its row. Between the two its files are young, and
nothing young is collected. And where it takes longer than that, the two still exclude each other: files are
removed, and a row is written after a last look at its files, in write transactions of the one database.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from sqlalchemy import Connection, func, select

from salver.clock import Clock
from salver.protocol.tables import Tables
from salver.registry.references import referenced_digests
from salver.security.access import Operation, Principal, require
from salver.storage.blob_store import Item, Kind
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.opening import open_blobs
from salver.storage.publication import read_tables
from salver.storage.schema import versions
from salver.storage.sweeping import GRACE_S, collectable

__all__ = ["Collected", "CollectionRequest", "collect"]

_AT_ONCE: Final = 32
"""Blobs that one transaction removes: others wait for it."""
_NAMED: Final = 100
"""Digests that are named in an answer or a record, at most."""


class CollectionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to collect, and whether to do it."""

    dry_run: bool = False
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86400.0)] = GRACE_S
    """Leave alone what was stored, and of what version that was deleted, since so many seconds."""


class Collected(msgspec.Struct, frozen=True):
    """What went, or would go."""

    blobs: int
    files: int
    """More than `blobs` where there are keys, or what others left."""
    size_bytes: int
    dry_run: bool
    digests: tuple[str, ...]
    """Of the blobs, the first hundred."""
    unfinished: int = 0
    """Files that killed writers had left in the home."""


def collect(
    home: Home, database: Database, principal: Principal, clock: Clock, asked: CollectionRequest | None = None
) -> Collected:
    """Remove from the artifact store of `home` what nothing refers to; blocks.

    REQUIRES the home lock, or to be the one controller below its holder. Killed at any moment, it has removed
    a part of what it may. Raises PERMISSION_DENIED, CORRUPT_ARTIFACT for published tables that cannot be read
    (what they deploy is protected, whatever the database says), and what the store raises.
    """
    require(principal, Operation.OPERATE)
    asked = asked or CollectionRequest()
    blobs = open_blobs(home)
    deployed = _files_of(read_tables(home))
    deleted_until_s = clock.wall_s() - asked.grace_s
    with database.read() as connection:
        state, referenced = _state(connection), referenced_digests(connection, deleted_until_s) | deployed
    found = list(collectable(blobs, referenced, clock.wall_s(), asked.grace_s))
    if asked.dry_run:
        return _report(found, dry_run=True)
    journal, gone = Journal(database, clock), list[tuple[Item, ...]]()
    for start in range(0, len(found), _AT_ONCE):
        with database.begin() as connection:
            if _state(connection) != state:
                state, referenced = _state(connection), referenced_digests(connection, deleted_until_s) | deployed
            removed = [
                items for items in found[start : start + _AT_ONCE] if _may_go(items, referenced) and blobs.remove(items)
            ]
            if removed:
                _record(journal, connection, principal, removed)
        gone += removed
    return _report(gone, dry_run=False, unfinished=blobs.discard_unfinished())


def _files_of(tables: Tables | None) -> frozenset[str]:
    return frozenset(file.sha256 for manifest in (tables.versions if tables else ()) for file in manifest.files)


def _state(connection: Connection) -> tuple[int, float]:
    """Changes whenever a version is registered: rows of versions are written once."""
    count, newest_s = connection.execute(select(func.count(), func.max(versions.c.created_s))).one()
    return int(count), newest_s or 0.0


def _is_blob(item: Item) -> bool:
    return item.kind in (Kind.PLAIN, Kind.ENCRYPTED)


def _may_go(items: tuple[Item, ...], referenced: frozenset[str]) -> bool:
    return items[0].sha256 not in referenced or not any(map(_is_blob, items))


def _report(gone: list[tuple[Item, ...]], *, dry_run: bool, unfinished: int = 0) -> Collected:
    files = [item for items in gone for item in items]
    digests = sorted({item.sha256 for item in files if _is_blob(item)})
    size_bytes = sum(item.size_bytes for item in files)
    return Collected(len(digests), len(files), size_bytes, dry_run, tuple(digests[:_NAMED]), unfinished)


def _record(journal: Journal, connection: Connection, principal: Principal, removed: list[tuple[Item, ...]]) -> None:
    report = _report(removed, dry_run=False)
    details = {"blobs": report.blobs, "bytes": report.size_bytes, "digests": list(report.digests)}
    journal.append(connection, actor=principal.name, action="collect", subject="artifacts", details=details)
