"""Seeds: a home that holds one deployed endpoint and nothing else - no database, no secrets.

What a container image carries. At the first start everything of its own - database, token key,
administrator's token - is made, and the seed's published tables are adopted as desired state. The version
keeps the signature of the home that it is from, whose public key goes along.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from salver.protocol.tables import DeploymentSpec, Tables, VersionManifest
from salver.registry.draft import VersionDraft
from salver.registry.keyring import Keyring
from salver.security.model_signing import SignedFiles, require_manifest
from salver.storage.blobs import BlobStore
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.publication import publish
from salver.storage.trust import TrustDirectory

__all__ = ["draft_of", "write_seed"]


def write_seed(destination: Path, source: Home, spec: DeploymentSpec, manifest: VersionManifest) -> None:
    """Make the empty directory `destination` a home that will serve `spec`, and nothing secret.

    REQUIRES a manifest with its attestation. Every blob is verified while it is copied, and the signature is too;
    raises CORRUPT_ARTIFACT or REFUSED_BY_POLICY.
    """
    signed = require_manifest(manifest, Keyring(source).trusted())
    home = Home.open(destination)
    theirs, ours = open_blobs(source), BlobStore(home.blobs_path)  # what an image carries is plain
    scratch = destination / "seed"
    scratch.mkdir()
    for number, file in enumerate(manifest.files):
        copy = scratch / str(number)
        theirs.copy_verified(file.sha256, copy)
        ours.put_file(copy)
    shutil.rmtree(scratch)
    _hand_on_keys(signed, source, home)
    publish(home, Tables(1, (manifest,), (spec,)))
    shutil.rmtree(home.secrets_path)
    for path in (home.database_path, home.lock_path):
        path.unlink(missing_ok=True)


def _hand_on_keys(signed: SignedFiles, source: Home, home: Home) -> None:
    """Have `home` trust who signed the version, and whose signature it came with."""
    wanted = {signed.key_id}
    if signed.claim is not None and signed.claim.publisher is not None:
        wanted.add(signed.claim.publisher.key_id)
    for key in Keyring(source).describe():
        if key.key_id in wanted:
            TrustDirectory(home.trust_path).add(key.key_id, key.pem.encode())


def draft_of(manifest: VersionManifest) -> VersionDraft:
    """The draft that registers a version again under the same number."""
    fields = msgspec.structs.asdict(manifest)
    del fields["ordinal"], fields["digest"]
    return VersionDraft(publisher_signature=fields.pop("attestation"), **fields)
