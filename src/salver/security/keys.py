"""The keys of a home: what it signs versions and its journal with, and whose signatures it takes.

    secrets/signing.key         ECDSA P-256, PEM (PKCS #8): signs the manifests of versions
    secrets/audit.key           Ed25519, PEM (PKCS #8): signs the tree heads of the journal
    trust/NAME.pub              public keys (PEM) whose manifests are taken; the home's own are among them
    trust/FINGERPRINT.distrusted   a key that is never taken again, whatever else lies there

The private keys are made once, by the first who needs them, and of two racing processes both use the
same. A key is known by its fingerprint: SHA-256 over its SubjectPublicKeyInfo, in hexadecimal. Whoever
may write to `trust` decides what loads. Importing this takes some 40 ms, for `cryptography`: whoever may not
need a key imports it when one is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from salver.protocol.errors import SalverError

__all__ = [
    "AUDIT_KEY",
    "SIGNING_KEY",
    "AuditKey",
    "AuditPublicKey",
    "Secrets",
    "SigningKey",
    "TrustFiles",
    "TrustedKeys",
    "VerifyingKey",
    "audit_key",
    "new_audit_pem",
    "new_signing_pem",
    "signing_key",
]

SIGNING_KEY: Final = "signing.key"
AUDIT_KEY: Final = "audit.key"


class Secrets(Protocol):
    """Where private keys lie: `salver.storage.home.Home`."""

    def secret(self, name: str, fresh: Callable[[], bytes]) -> bytes:
        """The secret of this name, made of `fresh()` durably and once if there is none."""


class TrustFiles(Protocol):
    """Where public keys lie: `salver.storage.trust.TrustDirectory`."""

    def public_keys(self) -> dict[str, bytes]:
        """PEM texts by the names of their files; an empty one for what cannot be read."""

    def distrusted(self) -> frozenset[str]:
        """Fingerprints of keys that must not be trusted."""


class VerifyingKey:
    """The public half of a key that signs manifests: ECDSA over P-256 with SHA-256."""

    __slots__ = ("_public", "key_id", "pem")

    def __init__(self, public: EllipticCurvePublicKey) -> None:
        self._public = public
        self.key_id = _fingerprint(public)
        self.pem = _public_pem(public)

    def __repr__(self) -> str:
        return f"<VerifyingKey {self.key_id[:16]}>"

    @classmethod
    def parse(cls, pem: bytes, name: str) -> VerifyingKey:
        """The key in a PEM file called `name`; INVALID_ARTIFACT for anything but a P-256 public key."""
        try:
            public = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{name[:100]!r} holds no public key on the curve P-256",
                "give a PEM file that begins with -----BEGIN PUBLIC KEY-----, as `salver keys show --pem` prints it",
            )
        return cls(public)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key's owner signed `message`; False for whatever else the bytes are."""
        try:
            self._public.verify(signature, message, ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """The key with which a home signs manifests."""

    __slots__ = ("_private", "public")

    def __init__(self, private: EllipticCurvePrivateKey) -> None:
        self._private = private
        self.public = VerifyingKey(private.public_key())

    def __repr__(self) -> str:
        return f"<SigningKey {self.key_id[:16]}>"

    @classmethod
    def parse(cls, pem: bytes) -> SigningKey:
        """The key in a PEM file; REFUSED_BY_POLICY for a damaged one."""
        private = _private(pem, SIGNING_KEY)
        if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP256R1):
            raise _damaged(SIGNING_KEY)
        return cls(private)

    @property
    def key_id(self) -> str:
        """The fingerprint of its public half."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """A signature in DER."""
        return self._private.sign(message, ECDSA(SHA256()))


class AuditPublicKey:
    """The public half of the key of a journal: Ed25519."""

    __slots__ = ("_public", "key_id", "pem")

    def __init__(self, public: Ed25519PublicKey) -> None:
        self._public = public
        self.key_id = _fingerprint(public)
        self.pem = _public_pem(public)

    def __repr__(self) -> str:
        return f"<AuditPublicKey {self.key_id[:16]}>"

    @classmethod
    def parse(cls, pem: bytes, name: str) -> AuditPublicKey:
        """The key in a PEM file called `name`; INVALID_ARTIFACT for anything but an Ed25519 public key."""
        try:
            public = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, Ed25519PublicKey):
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{name[:100]!r} holds no Ed25519 public key",
                "give the PEM file that `salver keys show --audit --pem` prints",
            )
        return cls(public)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key's owner signed `message`."""
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class AuditKey:
    """The key with which a home signs what its journal comes to."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = AuditPublicKey(private.public_key())

    def __repr__(self) -> str:
        return f"<AuditKey {self.key_id[:16]}>"

    @classmethod
    def parse(cls, pem: bytes) -> AuditKey:
        """The key in a PEM file; REFUSED_BY_POLICY for a damaged one."""
        private = _private(pem, AUDIT_KEY)
        if not isinstance(private, Ed25519PrivateKey):
            raise _damaged(AUDIT_KEY)
        return cls(private)

    @property
    def key_id(self) -> str:
        """The fingerprint of its public half."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._private.sign(message)


class TrustedKeys:
    """The public keys whose signatures are taken, by their fingerprints."""

    __slots__ = ("_keys", "unreadable")

    def __init__(self, keys: Mapping[str, VerifyingKey], unreadable: tuple[str, ...] = ()) -> None:
        self._keys = keys
        self.unreadable = unreadable
        """Names of files that should hold a key and do not: nothing is trusted for them."""

    def __repr__(self) -> str:
        return f"<TrustedKeys {', '.join(key_id[:16] for key_id in self._keys) or 'none'}>"

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The fingerprints."""
        return tuple(self._keys)

    @property
    def pems(self) -> tuple[bytes, ...]:
        """The keys as PEM, for another process; see `of`."""
        return tuple(key.pem for key in self._keys.values())

    def pem_of(self, key_id: str) -> bytes:
        """One of them; raises KeyError for a key that is not trusted."""
        return self._keys[key_id].pem

    @classmethod
    def read(cls, files: TrustFiles) -> TrustedKeys:
        """The keys of a home, without those that it distrusts."""
        keys, unreadable = {}, []
        for name, pem in files.public_keys().items():
            try:
                key = VerifyingKey.parse(pem, name)
            except SalverError:
                unreadable.append(name)
            else:
                keys[key.key_id] = key
        for key_id in files.distrusted():
            keys.pop(key_id, None)
        return cls(keys, tuple(unreadable))

    @classmethod
    def of(cls, pems: tuple[bytes, ...]) -> TrustedKeys:
        """What another process had as `pems`."""
        keys = [VerifyingKey.parse(pem, "trusted key") for pem in pems]
        return cls({key.key_id: key for key in keys})

    def signer(self, signature: bytes, message: bytes) -> VerifyingKey | None:
        """The trusted key that signed `message`, or None."""
        return next((key for key in self._keys.values() if key.verifies(signature, message)), None)


def signing_key(secrets: Secrets) -> SigningKey:
    """The key a home signs manifests with, made at the first call; REFUSED_BY_POLICY for a damaged one."""
    return SigningKey.parse(secrets.secret(SIGNING_KEY, new_signing_pem))


def audit_key(secrets: Secrets) -> AuditKey:
    """The key a home signs its journal with, made at the first call; REFUSED_BY_POLICY for a damaged one."""
    return AuditKey.parse(secrets.secret(AUDIT_KEY, new_audit_pem))


def new_signing_pem() -> bytes:
    """A new key for manifests."""
    return _private_pem(generate_private_key(SECP256R1()))


def new_audit_pem() -> bytes:
    """A new key for a journal."""
    return _private_pem(Ed25519PrivateKey.generate())


def _private_pem(private: EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _private(pem: bytes, name: str) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged(name) from None


def _damaged(name: str) -> SalverError:
    return SalverError(
        "REFUSED_BY_POLICY",
        f"secrets/{name} is not the private key that Salver put there",
        "restore it from the backup of this home",
    )


def _fingerprint(public: EllipticCurvePublicKey | Ed25519PublicKey) -> str:
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _public_pem(public: EllipticCurvePublicKey | Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
