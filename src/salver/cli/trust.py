"""Commands that ask a server: whose certificates they trust, and what they advise where that fails."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from salver.protocol.errors import SalverError

__all__ = ["advising", "trusted"]


def trusted(ca: Path | None) -> ssl.SSLContext | None:
    """What to check certificates against: those in a PEM file, or None for the usual authorities."""
    if ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SalverError(
            "INVALID_SETTING", f"cannot trust {str(ca)!r}: {error.strerror or error}", "give a PEM file"
        ) from None


@contextlib.contextmanager
def advising() -> Iterator[None]:
    """Say which option helps against a certificate that is not trusted, whatever Python code was asked."""
    from salver.client.address import is_certificate_error

    try:
        yield
    except SalverError as error:
        if not is_certificate_error(error):
            raise
        raise SalverError(error.code, error.message, "name the authority that signed it with --ca FILE") from None
