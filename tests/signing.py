"""A key that tests sign versions with, and a rule that trusts it."""

from __future__ import annotations

import functools

import msgspec

from salver.protocol.tables import VersionManifest
from salver.runtime.provenance import Provenance
from salver.security.keys import SigningKey, TrustedKeys, new_signing_pem
from salver.security.model_signing import sign_manifest

KEY = SigningKey.parse(new_signing_pem())
TRUSTED = TrustedKeys({KEY.key_id: KEY.public})


def signed(manifest: VersionManifest) -> VersionManifest:
    """The manifest with a signature over it, the same one each time."""
    return msgspec.structs.replace(manifest, attestation=_bundle(msgspec.json.encode(manifest)))


@functools.cache
def _bundle(manifest: bytes) -> str:
    return sign_manifest(KEY, msgspec.json.decode(manifest, type=VersionManifest))


def provenance() -> Provenance:
    """Loads what `signed` has signed."""
    return Provenance(lambda: TRUSTED)
