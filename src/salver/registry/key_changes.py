"""Changes of a home's keys, each with its record in the journal."""

from __future__ import annotations

import msgspec

from salver.registry.keyring import KeyDescription, Keyring
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.journal import Journal

__all__ = ["KeyChanges", "Rotated"]


class Rotated(msgspec.Struct, frozen=True):
    """The fingerprints of the key that signed, and of the one that signs now."""

    before: str
    after: str


class KeyChanges:
    """Changes `keyring`, in a transaction: of two at once the other would record a key that is none any more."""

    __slots__ = ("_database", "_journal", "_keyring")

    def __init__(self, database: Database, journal: Journal, keyring: Keyring) -> None:
        self._database = database
        self._journal = journal
        self._keyring = keyring

    def rotate(self, principal: Principal) -> Rotated:
        """See `Keyring.rotate`; raises PERMISSION_DENIED besides."""
        require(principal, Operation.KEEP_KEYS)
        with self._database.begin() as connection:
            rotated = Rotated(*self._keyring.rotate())
            self._journal.append(
                connection,
                actor=principal.name,
                action="rotate_key",
                subject=rotated.after,
                details=msgspec.to_builtins(rotated),
                before=rotated.before,
                after=rotated.after,
            )
        return rotated

    def trust(self, principal: Principal, pem: str, name: str) -> KeyDescription:
        """See `Keyring.trust`; raises PERMISSION_DENIED besides."""
        require(principal, Operation.KEEP_KEYS)
        with self._database.begin() as connection:
            key = self._keyring.trust(pem.encode(), name)
            trusted = KeyDescription(key.key_id, "trusted", f"{name}.pub", key.pem.decode())
            self._journal.append(
                connection,
                actor=principal.name,
                action="trust_key",
                subject=key.key_id,
                details={"name": name},
                after=trusted,
            )
        return trusted

    def distrust(self, principal: Principal, fingerprint: str) -> KeyDescription:
        """See `Keyring.distrust`; raises PERMISSION_DENIED besides."""
        require(principal, Operation.KEEP_KEYS)
        with self._database.begin() as connection:
            key = self._keyring.distrust(fingerprint)
            distrusted = KeyDescription(key.key_id, "distrusted", "", key.pem.decode())
            self._journal.append(
                connection,
                actor=principal.name,
                action="distrust_key",
                subject=key.key_id,
                details={},
                after=distrusted,
            )
        return distrusted
