"""The keys of the home, signed manifests, and versions that must not be loaded any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.control.actions.descriptions import OfVersion
from salver.protocol.errors import SalverError
from salver.protocol.tables import Revocation
from salver.registry.attestation import Attestation, attestation_of
from salver.registry.keyring import KeyDescription
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = [
    "ACTIONS",
    "ATTESTATION",
    "DISTRUST_KEY",
    "KEYS",
    "REVOCATIONS",
    "REVOKE",
    "ROTATE_KEY",
    "TRUST_KEY",
    "AskedRevocation",
    "KeyFile",
    "KeyNamed",
    "Revoked",
    "Rotated",
]


class Rotated(msgspec.Struct, frozen=True):
    """The fingerprints of the key that signed, and of the one that signs now."""

    before: str
    after: str


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public key, and what to call it."""

    pem: str
    name: str


class KeyNamed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key by its fingerprint, or the beginning of it."""

    fingerprint: str


class AskedRevocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version to be loaded no more, and why."""

    model: str
    version: str
    why: str


class Revoked(msgspec.Struct, frozen=True):
    """What was revoked, and which endpoints should still serve it: what they have loaded answers on."""

    revocation: Revocation
    endpoints: tuple[str, ...]


def _rotate(admin: LocalAdministration, _: Nothing) -> Rotated:
    records = admin.records
    # In the transaction: two at once would make two keys and record one of them wrongly.
    with records.database.begin() as connection:
        before, after = records.keyring.rotate()
        records.journal.append(
            connection,
            actor=admin.principal.name,
            action="rotate_key",
            subject=after,
            details={"before": before, "after": after},
        )
    return Rotated(before, after)


def _trust(admin: LocalAdministration, asked: KeyFile) -> KeyDescription:
    records = admin.records
    with records.database.begin() as connection:
        key = records.keyring.trust(asked.pem.encode(), asked.name)
        records.journal.append(
            connection,
            actor=admin.principal.name,
            action="trust_key",
            subject=key.key_id,
            details={"name": asked.name},
        )
    return KeyDescription(key.key_id, "trusted", f"{asked.name}.pub", key.pem.decode())


def _distrust(admin: LocalAdministration, asked: KeyNamed) -> KeyDescription:
    records = admin.records
    with records.database.begin() as connection:
        key = records.keyring.distrust(asked.fingerprint)
        records.journal.append(
            connection, actor=admin.principal.name, action="distrust_key", subject=key.key_id, details={}
        )
    return KeyDescription(key.key_id, "distrusted", "", key.pem.decode())


def _attestation(admin: LocalAdministration, asked: OfVersion) -> Attestation:
    version = admin.records.pages.number_of(asked.model, asked.version)
    with admin.records.database.read() as connection:
        found = attestation_of(connection, asked.model, version)
    if found is None:
        raise SalverError(
            "NOT_FOUND", f"{asked.model}@{version} is not signed", "register it again under another number"
        )
    return found


def _revoke(admin: LocalAdministration, asked: AskedRevocation) -> Revoked:
    version = admin.records.pages.number_of(asked.model, asked.version)
    revoked = admin.records.revocations.revoke(admin.principal, asked.model, version, asked.why)
    admin.publish()
    specs = admin.records.deployments.list()
    still = [spec.endpoint for spec in specs if (spec.model, spec.version) == (revoked.model, revoked.version)]
    return Revoked(revoked, tuple(still))


KEYS: Final = Action(
    "GET",
    "/v1/keys",
    Operation.READ,
    "The keys of the home: public halves, and what each is for",
    Nothing,
    tuple[KeyDescription, ...],
    lambda admin, _: admin.records.keyring.describe(),
)
ROTATE_KEY: Final = Action(
    "POST",
    "/v1/keys/rotation",
    Operation.KEEP_KEYS,
    "Sign with a new key from now on; what the old one signed stays good",
    Nothing,
    Rotated,
    _rotate,
)
TRUST_KEY: Final = Action(
    "POST",
    "/v1/keys",
    Operation.KEEP_KEYS,
    "Take versions that come with a signature of this key",
    KeyFile,
    KeyDescription,
    _trust,
)
DISTRUST_KEY: Final = Action(
    "DELETE",
    "/v1/keys/{fingerprint}",
    Operation.KEEP_KEYS,
    "Load nothing any more that this key has signed",
    KeyNamed,
    KeyDescription,
    _distrust,
)
ATTESTATION: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/attestation",
    Operation.READ,
    "The signed manifest of a version",
    OfVersion,
    Attestation,
    _attestation,
)
REVOKE: Final = Action(
    "POST",
    "/v1/models/{model}/versions/{version}/revocation",
    Operation.DEPLOY,
    "Have a version loaded nowhere and never again",
    AskedRevocation,
    Revoked,
    _revoke,
)
REVOCATIONS: Final = Action(
    "GET",
    "/v1/revocations",
    Operation.READ,
    "What was revoked, by whom and why",
    Nothing,
    tuple[Revocation, ...],
    lambda admin, _: admin.records.revocations.list(),
)
ACTIONS: Final = (KEYS, ROTATE_KEY, TRUST_KEY, DISTRUST_KEY, ATTESTATION, REVOKE, REVOCATIONS)
