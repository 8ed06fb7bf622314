"""Which of the published versions may be loaded: signed by a trusted key as they are, and not revoked.

Asked at each load, never for a request. The keys are read from the home at each load, so that a key which
is distrusted while the server runs makes nothing load from then on; what has been loaded stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from salver.protocol.errors import SalverError
from salver.protocol.tables import Revocation, VersionManifest
from salver.storage.home import Home
from salver.storage.trust import TrustDirectory
from salver.telemetry.logs import log_event

if TYPE_CHECKING:
    from salver.security.keys import TrustedKeys

__all__ = ["Provenance", "require_signed", "trusted_keys_of"]


class Provenance:
    """The rule of one server process for what it loads."""

    def __init__(self, keys: Callable[[], TrustedKeys]) -> None:
        self._keys = keys
        self._revoked: dict[str, Revocation] = {}

    def revoke(self, revocations: tuple[Revocation, ...]) -> None:
        """Replace the list of what is revoked."""
        self._revoked = {each.reference: each for each in revocations}

    def require(self, manifest: VersionManifest) -> tuple[bytes, ...]:
        """Raise REFUSED_BY_POLICY for a version that must not be loaded; blocks, so call it off the event loop.

        Returns the trusted keys as PEM, for a worker process to look again.
        """
        revoked = self._revoked.get(manifest.reference)
        if revoked is not None:
            raise SalverError(
                "REFUSED_BY_POLICY", f"{manifest.reference} was revoked: {revoked.why}", "deploy another version"
            )
        keys = self._keys()
        if keys.unreadable:
            log_event("trusted_keys_unreadable", level=logging.WARNING, files=", ".join(keys.unreadable)[:500])
        from salver.security.model_signing import require_manifest  # noqa: PLC0415 - see `salver.security.keys`

        require_manifest(manifest, keys)
        return keys.pems


def trusted_keys_of(home: Home) -> Callable[[], TrustedKeys]:
    """A function that reads the keys a home trusts."""

    def read() -> TrustedKeys:
        from salver.security.keys import TrustedKeys  # noqa: PLC0415 - only when something loads

        return TrustedKeys.read(TrustDirectory(home.trust_path))

    return read


def require_signed(manifest: VersionManifest, pems: tuple[bytes, ...]) -> None:
    """In a worker: raise REFUSED_BY_POLICY unless one of these keys vouches for the manifest it was told to load."""
    from salver.security.keys import TrustedKeys  # noqa: PLC0415 - once in the life of a worker
    from salver.security.model_signing import require_manifest  # noqa: PLC0415

    require_manifest(manifest, TrustedKeys.of(pems))
