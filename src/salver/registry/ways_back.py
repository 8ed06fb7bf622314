"""Where one could go back to from a version: what has proven itself and can still be loaded.

Proven is what was in production, or served an endpoint; a version that nobody ever asked proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from sqlalchemy import Connection

from salver.protocol.errors import SalverError
from salver.protocol.stages import OUT, Stage
from salver.protocol.tables import VersionManifest
from salver.registry.catalog import find_version
from salver.registry.compatibility import breaking
from salver.registry.decisions import entries_into_production
from salver.registry.history import served_of
from salver.registry.revocations import read_revocations
from salver.registry.stages import stages_of
from salver.storage.home import Home
from salver.storage.opening import open_blobs

__all__ = ["Missing", "WayBack", "missing_in", "ways_back"]

Missing = Callable[[VersionManifest], str]
"""Says which file of a version is not in the store, empty where all are; it asks the store and nothing else."""
_MOST: Final = 20
"""Versions that are looked at."""


class WayBack(msgspec.Struct, frozen=True):
    """A version that was in production or served before, and whether it still could."""

    version: str
    stage: Stage
    was: str
    """What it has done, in words."""
    problem: str = ""
    """Why it cannot be loaded; empty where it can."""
    breaks: tuple[str, ...] = ()
    """What clients that have moved on might not understand in it."""


def ways_back(connection: Connection, manifest: VersionManifest, missing: Missing) -> tuple[WayBack, ...]:
    """Where one could go back to, the best first, up to the first that can be loaded; nothing where none ever served.

    The best is what is in production, then what came there last, then what was deployed last.
    """
    model = manifest.model
    stages = {each.version: each.stage for each in stages_of(connection, model)}
    entered = entries_into_production(connection, model)
    served = {each.version: each.since_s for each in served_of(connection, model)}
    revoked = {each.version: each.why for each in read_revocations(connection) if each.model == model}
    proven = sorted(
        ({*entered, *served} & stages.keys()) - {manifest.version},
        key=lambda each: (stages[each] is Stage.PRODUCTION, entered.get(each, 0.0), served.get(each, 0.0)),
        reverse=True,
    )
    found: list[WayBack] = []
    for version in proven[:_MOST]:
        stage = stages[version]
        theirs = find_version(connection, model, version)
        was = f"{'is' if stage is Stage.PRODUCTION else 'was'} in production" if version in entered else "was deployed"
        if version in revoked:
            problem = f"was revoked: {revoked[version]}"
        elif stage in OUT:
            problem = f"is {stage}"
        else:
            problem = missing(theirs)
        found.append(WayBack(version, stage, was, problem, breaking(manifest, theirs)))
        if not problem:
            break
    return tuple(found)


def missing_in(home: Home) -> Missing:
    """`Missing` about the store of a home."""

    def look(manifest: VersionManifest) -> str:
        try:
            blobs = open_blobs(home)
            for file in manifest.files:
                if blobs.size_bytes(file.sha256) is None:
                    return f"has lost its file {file.path}"
        except SalverError as error:
            return f"may have its files or not: {error.message}"
        return ""

    return look
