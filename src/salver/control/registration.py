"""From a path to a version ready to be registered: bytes stored, signature and profile known."""

from __future__ import annotations

from pathlib import Path

from salver.protocol.profile import Profile
from salver.protocol.tables import FileEntry
from salver.registry.draft import VersionDraft
from salver.runtime.artifact import Artifact, read_artifact
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

    Raises what reading the artifact or the profile raises; then nothing has been stored. What
    earlier registrations left half when they were killed is removed.
    """
    artifact = read_artifact(path, format=format, trust_code=trust_code)
    measured = Profile.measure(read_table(profile), artifact.signature) if profile else None
    blobs.discard_unfinished()
    files = []
    for relative, file in artifact.files.items():
        blob = blobs.put_file(file)
        files.append(FileEntry(relative, blob.sha256, blob.size_bytes))
    return drafted(name, artifact, tuple(files), version=version, profile=measured)


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
