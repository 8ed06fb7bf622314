"""The signed manifests of versions, stored in the transaction that stores the version.

A row is written once. What it vouches for is the manifest in its version's row; whether the two still agree is
looked at when the version loads, from what is published (`salver.security.model_signing.require_manifest`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, tuple_

from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.security.keys import SigningKey, TrustedKeys
from salver.security.model_signing import Publisher, differences, open_bundle, sign_manifest
from salver.storage.registry_schema import attestations, revocations
from salver.storage.schema import versions

__all__ = ["Attestation", "attestation_of", "attested", "sign_from_before", "sign_version", "verified_publisher"]


_OF_EACH_HOME: Final = frozenset({"ordinal", "trusts_code", "profile", "metadata", "attestation"})
"""What of a manifest is decided where a version is registered, and not by who made its files."""


class Attestation(msgspec.Struct, frozen=True):
    """A version with the signature over it, and who made that when."""

    manifest: VersionManifest
    """With its bundle in `attestation`."""
    key_id: str
    signed_s: float
    revoked: str = ""
    """Why it was revoked, if it was."""


def sign_version(
    connection: Connection,
    key: SigningKey,
    manifest: VersionManifest,
    now_s: float,
    publisher: Publisher | None = None,
) -> None:
    """Sign a version and store the signature with it. REQUIRES its row in the same transaction, and none before."""
    connection.execute(
        insert(attestations).values(
            model=manifest.model,
            version=manifest.version,
            envelope=sign_manifest(key, manifest, publisher),
            key_id=key.key_id,
            signed_s=now_s,
        )
    )


def verified_publisher(bundle: str, manifest: VersionManifest, keys: TrustedKeys) -> Publisher:
    """Whose signature the files of `manifest` came with, once it is verified.

    Raises REFUSED_BY_POLICY where no trusted key made it, where it is over other files than these - every one
    and no more - or where it was made for a version with another name or number (a replay); and
    INVALID_ARTIFACT for what is no signature.
    """
    signed = open_bundle(bundle, keys)
    wrong = differences(signed.all_files, manifest.files)
    if signed.claim is not None and not wrong:
        wrong = _other_settings(signed.claim.manifest, manifest)
    if wrong:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"the signature does not fit what is registered: {wrong[0]}",
            "register exactly what was signed, without other files beside it",
        )
    return Publisher(signed.key_id, bundle)


def _other_settings(signed: VersionManifest, manifest: VersionManifest) -> list[str]:
    if signed.reference != manifest.reference:
        return [f"it was made for {signed.reference}, not for {manifest.reference}"]
    return [
        f"it was made for another {field}"
        for field in VersionManifest.__struct_fields__
        if field not in _OF_EACH_HOME and getattr(signed, field) != getattr(manifest, field)
    ]


def attestation_of(connection: Connection, model: str, version: str) -> Attestation | None:
    """The signature of a version with the manifest it stands for; None for no such version, or one without."""
    query = (
        select(
            versions.c.manifest,
            attestations.c.envelope,
            attestations.c.key_id,
            attestations.c.signed_s,
            revocations.c.why,
        )
        .join(attestations, _same_version())
        .join(
            revocations,
            and_(revocations.c.model == versions.c.model, revocations.c.version == versions.c.version),
            isouter=True,
        )
        .where(versions.c.model == model, versions.c.version == version)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Attestation(_attested(row.manifest, row.envelope), row.key_id, row.signed_s, row.why or "")


def attested(connection: Connection, wanted: Iterable[tuple[str, str]]) -> tuple[VersionManifest, ...]:
    """The manifests of these (model, version), with their signatures where there are any, as they are published."""
    query = (
        select(versions.c.manifest, attestations.c.envelope)
        .join(attestations, _same_version(), isouter=True)
        .where(tuple_(versions.c.model, versions.c.version).in_(list(wanted)))
        .order_by(versions.c.model, versions.c.ordinal)
    )
    return tuple(_attested(manifest, envelope or "") for manifest, envelope in connection.execute(query))


def sign_from_before(connection: Connection, key: Callable[[], SigningKey], now_s: float) -> tuple[str, ...]:
    """Sign every version of a home that has versions and not one signature: it is from before there were any.

    Only there: in a home that signs, a version without a signature was not registered by it. Returns the references.
    """
    if connection.execute(select(func.count()).select_from(attestations)).scalar_one():
        return ()
    manifests = [VersionManifest.parse(text) for text in connection.execute(select(versions.c.manifest)).scalars()]
    for manifest in manifests:
        sign_version(connection, key(), manifest, now_s)
    return tuple(manifest.reference for manifest in manifests)


def _same_version() -> ColumnElement[bool]:
    return and_(attestations.c.model == versions.c.model, attestations.c.version == versions.c.version)


def _attested(manifest: str, envelope: str) -> VersionManifest:
    return msgspec.structs.replace(VersionManifest.parse(manifest), attestation=envelope)
