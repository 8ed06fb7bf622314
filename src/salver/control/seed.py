"""Seeds: a home that holds one deployed endpoint and nothing else - no database, no secrets.

What a container image carries. At the first start everything of its own - database, token key,
administrator's token - is made, and the seed's published tables are adopted as desired state.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from salver.protocol.tables import DeploymentSpec, Tables, VersionManifest
from salver.registry.draft import VersionDraft
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.publication import publish

__all__ = ["draft_of", "write_seed"]


def write_seed(destination: Path, source: Home, spec: DeploymentSpec, manifest: VersionManifest) -> None:
    """Make the empty directory `destination` a home that will serve `spec`, and nothing secret.

    Every blob is verified while it is copied; raises CORRUPT_ARTIFACT.
    """
    home = Home.open(destination)
    theirs, ours = BlobStore(source.blobs_path), BlobStore(home.blobs_path)
    scratch = destination / "seed"
    scratch.mkdir()
    for number, file in enumerate(manifest.files):
        copy = scratch / str(number)
        theirs.copy_verified(file.sha256, copy)
        ours.put_file(copy)
    shutil.rmtree(scratch)
    publish(home, Tables(1, (manifest,), (spec,)))
    shutil.rmtree(home.secrets_path)
    for path in (home.database_path, home.lock_path):
        path.unlink(missing_ok=True)


def draft_of(manifest: VersionManifest) -> VersionDraft:
    """The draft that registers a version again under the same number."""
    fields = msgspec.structs.asdict(manifest)
    del fields["ordinal"], fields["digest"]
    return VersionDraft(**fields)
