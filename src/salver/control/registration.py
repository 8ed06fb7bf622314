"""From a path to a version ready to be registered: bytes stored, signature and profile known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from salver.protocol.errors import SalverError
from salver.protocol.profile import Profile
from salver.protocol.tables import FileEntry
from salver.registry.draft import VersionDraft
from salver.runtime.artifact import Artifact, artifact_files, read_artifact
from salver.runtime.examine import Examined
from salver.storage.blob_store import Blobs
from salver.storage.tabular import read_table

__all__ = ["draft_version", "drafted"]


def draft_version(
    blobs: Blobs,
    name: str,
    path: Path,
    *,
    version: str | None = None,
    format: str | None = None,
    profile: Path | None = None,
    trust_code: bool = False,
) -> VersionDraft:
    """Read the artifact at `path`, store its bytes, and describe the version they make.

    Raises what reading the artifact or the profile raises; then nothing has been stored. INVALID_ARTIFACT is also
    for files that change meanwhile: what was read of them need not be true of what was stored. What
    earlier registrations left half when they were killed is removed.
    """
    files = []
    with _standing_still(path):
        artifact = read_artifact(path, format=format, trust_code=trust_code)
        measured = Profile.measure(read_table(profile), artifact.signature) if profile else None
        blobs.discard_unfinished()
        for relative, file in artifact.files.items():
            blob = blobs.put_file(file)
            files.append(FileEntry(relative, blob.sha256, blob.size_bytes))
    return drafted(name, artifact, tuple(files), version=version, profile=measured)


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
