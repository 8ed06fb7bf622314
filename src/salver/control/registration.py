"""From a path to a registered version: its bytes stored, then described, then taken into the registry."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.profile import ColumnProfiles, Profile
from salver.protocol.tables import FileEntry, VersionManifest
from salver.registry.compatibility import Change
from salver.registry.draft import VersionDraft
from salver.registry.files import check_files
from salver.runtime.artifact import Artifact, artifact_files, recognise
from salver.runtime.examine import Examined
from salver.security.access import Operation, require
from salver.storage.blob_store import Blobs
from salver.storage.opening import open_blobs
from salver.storage.tabular import read_table

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["Registered", "check_stored", "draft_version", "drafted", "register_draft"]


class Registered(msgspec.Struct, frozen=True):
    """The answer to a registration; `created` is false when the very same version was there."""

    manifest: VersionManifest
    created: bool
    against: str = ""
    """The release that the version was compared with for its number; empty where there was none."""
    changes: tuple[Change, ...] = ()
    """What differs from that one."""


def draft_version(
    blobs: Blobs,
    name: str,
    path: Path,
    *,
    version: str | None = None,
    format: str | None = None,
    profile: Path | None = None,
    columns: ColumnProfiles | None = None,
    trust_code: bool = False,
) -> VersionDraft:
    """Read the artifact at `path`, store its bytes meanwhile, and describe the version they make.

    Without a file for a profile it is that of the training `columns`, where they are its inputs.

    Raises what reading the artifact or the profile raises. Then nothing is registered; bytes of what was recognised
    may have been stored, belong to nobody and are collected. INVALID_ARTIFACT is also for files that change meanwhile:
    what was read of them need not be true of what was stored. What earlier registrations left half when they were
    killed is removed.
    """
    with _standing_still(path), ThreadPoolExecutor(1) as aside:
        recognised = recognise(path, format=format, trust_code=trust_code)
        storing = aside.submit(_store, blobs, recognised.files)
        artifact = recognised.described()
        if profile is not None:
            measured: Profile | None = Profile.measure(read_table(profile), artifact.signature)
        else:
            measured = columns.profile(artifact.signature) if columns else None
        files = storing.result()
    return drafted(name, artifact, files, version=version, profile=measured)


def _store(blobs: Blobs, files: Mapping[str, Path]) -> tuple[FileEntry, ...]:
    blobs.discard_unfinished()
    stored = {relative: blobs.put_file(file) for relative, file in files.items()}
    return tuple(FileEntry(relative, blob.sha256, blob.size_bytes) for relative, blob in stored.items())


@contextlib.contextmanager
def _standing_still(path: Path) -> Iterator[None]:
    """Raise INVALID_ARTIFACT for an artifact of which a file comes, goes or changes within the block."""
    try:
        before = _look(path)
        yield
        after = _look(path)
    except FileNotFoundError as error:
        raise _changed(Path(error.filename or path)) from error
    for file in sorted(before.keys() | after.keys()):
        if before.get(file) != after.get(file):
            raise _changed(file)


def _look(path: Path) -> dict[Path, tuple[int, int, int, int]]:
    """The files of an artifact, and what no writer leaves as it is."""
    found = {file: file.lstat() for file in artifact_files(path).values()}
    return {file: (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) for file, now in found.items()}


def _changed(file: Path) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT",
        f"{file.name!r} changed or vanished while it was read",
        "register it when whoever writes it has finished, or a copy of it",
    )


def drafted(
    name: str,
    artifact: Artifact | Examined,
    files: tuple[FileEntry, ...],
    *,
    version: str | None = None,
    profile: Profile | None = None,
) -> VersionDraft:
    """The version that an artifact makes, whose bytes are stored as `files`."""
    declared = artifact.declaration
    return VersionDraft(
        model=name,
        format=artifact.format,
        files=files,
        signature=artifact.signature,
        version=version,
        kind=declared.kind,
        preprocess=declared.preprocess,
        postprocess=declared.postprocess,
        cost=declared.cost,
        length=declared.length,
        idempotent=declared.idempotent,
        warm_up=declared.warm_up,
        states=declared.states,
        streams=declared.streams,
        trusts_code=artifact.executes_code,
        profile=profile,
        metadata=declared.metadata,
    )


def register_draft(admin: LocalAdministration, draft: VersionDraft) -> Registered:
    """Add a version whose bytes are stored. REQUIRES a draft that is true of them.

    Raises NOT_FOUND or CORRUPT_ARTIFACT naming a file whose blob is not there, and what `Catalog.add_version` raises.
    """
    require(admin.principal, Operation.REGISTER)
    check_files(draft.files)
    blobs = open_blobs(admin.home)
    check_stored(blobs, draft.files)
    # Again where nobody can remove them any more: see `salver.registry.collection`.
    added = admin.records.catalog.add_version(admin.principal, draft, look=lambda: check_stored(blobs, draft.files))
    return Registered(added.manifest, added.created, added.numbered.against, added.numbered.changes)


def check_stored(blobs: Blobs, files: Iterable[FileEntry]) -> None:
    """Raise unless each file's blob is there in its size; what is in it is looked at when it is loaded."""
    for file in files:
        size_bytes = blobs.size_bytes(file.sha256)
        if size_bytes is None:
            raise SalverError(
                "NOT_FOUND",
                f"file {file.path[:200]!r} has the digest {file.sha256}, which is not in the store",
                "store the bytes first: `salver register` does both",
            )
        if size_bytes != file.size_bytes:
            raise SalverError(
                "CORRUPT_ARTIFACT",
                f"file {file.path[:200]!r} is said to have {file.size_bytes} bytes; {size_bytes} are stored",
                "register the same file again",
            )
