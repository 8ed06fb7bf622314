"""Scrubbing: every stored byte read again and compared with what it should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.storage.blob_store import Blobs

__all__ = ["BadBlob", "owners_of", "scrub"]


class BadBlob(msgspec.Struct, frozen=True):
    """A file of versions that is not as it was stored, or not to be read."""

    sha256: str
    references: tuple[str, ...]
    """NAME@VERSION, empty for one that belongs to none."""
    code: str
    problem: str
    remedy: str


def owners_of(manifests: Iterable[VersionManifest]) -> dict[str, tuple[str, ...]]:
    """NAME@VERSION of the versions that a file belongs to, by its digest."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for manifest in manifests:
        for sha256 in sorted({file.sha256 for file in manifest.files}):
            found[sha256].append(manifest.reference)
    return {sha256: tuple(references) for sha256, references in found.items()}


def scrub(blobs: Blobs, owners: Mapping[str, tuple[str, ...]]) -> Iterator[BadBlob]:
    """Read these files where they are kept, and tell of the bad ones as they are found.

    A store that cannot be reached ends it with STORE_UNAVAILABLE: that says nothing of any file.
    """
    for sha256, versions in owners.items():
        try:
            blobs.verify(sha256)
        except SalverError as error:
            if error.code == "STORE_UNAVAILABLE":
                raise
            yield BadBlob(sha256, versions, error.code, error.message, error.remedy)
