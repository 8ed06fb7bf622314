"""The keys of one home, as its files have them now: what signs, and what is trusted."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.security.keys import (
    SIGNING_KEY,
    AuditPublicKey,
    SigningKey,
    TrustedKeys,
    VerifyingKey,
    audit_key,
    new_signing_pem,
    signing_key,
)
from salver.storage.home import Home
from salver.storage.trust import TrustDirectory

__all__ = ["KeyDescription", "Keyring"]

_SHORTEST_PREFIX: Final = 8


class KeyDescription(msgspec.Struct, frozen=True):
    """A key of a home, without what is secret of it."""

    key_id: str
    use: str
    """`signs` for the key that signs versions now, `trusted` for others whose versions load, `distrusted` for those
    whose versions do not, `audit` for the one that signs the journal."""
    name: str
    """Of the file in the directory `trust`; empty for what has none there."""
    pem: str


class Keyring:
    """Reads the files at every call, so that what was rotated or distrusted is heeded at once.

    REQUIRES the home lock, or to be the one controller below its holder, where something changes.
    """

    __slots__ = ("_home", "_trust")

    def __init__(self, home: Home) -> None:
        self._home = home
        self._trust = TrustDirectory(home.trust_path)

    @property
    def has_keys(self) -> bool:
        """Whether this home has ever signed or trusted anything."""
        return (self._home.secrets_path / SIGNING_KEY).exists() or bool(self._trust.public_keys())

    def signing(self) -> SigningKey:
        """The key that signs now, which is trusted; made at the first call. REFUSED_BY_POLICY where it is distrusted.

        A key that was replaced, or made just before the process died, is trusted from the next call on.
        """
        key = signing_key(self._home)
        if key.key_id in self._trust.distrusted():
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"the home's own signing key {key.key_id[:16]} is distrusted",
                "make another one: salver keys rotate",
            )
        self._trust.add(key.key_id, key.public.pem)
        return key

    def audit(self) -> AuditPublicKey:
        """The public half of the key that signs the journal."""
        return audit_key(self._home).public

    def trusted(self) -> TrustedKeys:
        """The keys whose versions load."""
        return TrustedKeys.read(self._trust)

    def rotate(self) -> tuple[str, str]:
        """Sign with a new key from now on; returns the fingerprints of the old one and of the new.

        What the old one has signed stays good: its public half stays among the trusted keys.
        """
        before = signing_key(self._home)
        if before.key_id not in self._trust.distrusted():
            self._trust.add(before.key_id, before.public.pem)
        self._home.replace_secret(SIGNING_KEY, new_signing_pem())
        return before.key_id, self.signing().key_id

    def trust(self, pem: bytes, name: str) -> VerifyingKey:
        """Take versions that come with a signature of this key; ALREADY_EXISTS, REFUSED_BY_POLICY, INVALID_ARTIFACT."""
        check_name(name, "key")
        key = VerifyingKey.parse(pem, name)
        if key.key_id in self._trust.distrusted():
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"the key {key.key_id[:16]} was distrusted",
                f"if that was a mistake, remove trust{os.sep}{key.key_id}.distrusted from the home",
            )
        if key.key_id in self.trusted().key_ids:
            raise SalverError("ALREADY_EXISTS", f"the key {key.key_id[:16]} is trusted already", "salver keys show")
        if not self._trust.add(key.key_id, key.pem, name):
            raise SalverError("ALREADY_EXISTS", f"there is a trusted key called {name!r}", "give it another name")
        return key

    def distrust(self, fingerprint: str) -> VerifyingKey:
        """Load nothing any more that a key has signed; the fingerprint may be cut short.

        Raises NOT_FOUND for a key that is not trusted, and CONFLICT for the one that signs now.
        """
        keys = self._files_by_key()
        found = [key for key in keys if len(fingerprint) >= _SHORTEST_PREFIX and key.startswith(fingerprint)]
        if len(found) != 1:
            known = ", ".join(key[:16] for key in keys) or "none"
            raise SalverError(
                "NOT_FOUND", f"no single trusted key has the fingerprint {fingerprint[:64]!r}", f"trusted are {known}"
            )
        key_id = found[0]
        if key_id == signing_key(self._home).key_id:
            raise SalverError(
                "CONFLICT",
                f"the key {key_id[:16]} is the one this home signs with",
                "make another one first: salver keys rotate",
            )
        key, names = keys[key_id]
        self._trust.distrust(key_id, key.pem, names)
        return key

    def describe(self) -> tuple[KeyDescription, ...]:
        """All keys: the one that signs, the trusted and the distrusted ones, and the journal's."""
        signing, audit = self.signing(), self.audit()
        others = []
        for key_id, (key, names) in self._files_by_key().items():
            use = "signs" if key_id == signing.key_id else "trusted"
            others.append(KeyDescription(key_id, use, names[0], key.pem.decode()))
        others.sort(key=lambda each: (each.use != "signs", each.name))
        distrusted = [KeyDescription(key_id, "distrusted", "", "") for key_id in sorted(self._trust.distrusted())]
        return (*others, *distrusted, KeyDescription(audit.key_id, "audit", "", audit.pem.decode()))

    def _files_by_key(self) -> dict[str, tuple[VerifyingKey, tuple[str, ...]]]:
        """The trusted keys, each with the names of all files that hold it."""
        distrusted = self._trust.distrusted()
        found: dict[str, tuple[VerifyingKey, tuple[str, ...]]] = {}
        for name, pem in self._trust.public_keys().items():
            try:
                key = VerifyingKey.parse(pem, name)
            except SalverError:
                continue
            if key.key_id not in distrusted:
                _, names = found.get(key.key_id, (key, ()))
                found[key.key_id] = (key, (*names, name))
        return found
