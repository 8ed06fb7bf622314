"""On what occasion something is asked for: the id of the request and the reason, as they travel in headers."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import quote, unquote

from salver.protocol.errors import SalverError
from salver.protocol.reasons import checked_why

__all__ = ["REQUEST_ID_HEADER", "WHY_HEADER", "new_request_id", "request_id", "why_header", "why_said"]

REQUEST_ID_HEADER: Final = "x-request-id"
WHY_HEADER: Final = "x-salver-why"
"""UTF-8, percent-encoded."""
_LONGEST_ID: Final = 128


def new_request_id() -> str:
    """An id unlike all others."""
    return secrets.token_hex(16)


def request_id(given: str) -> str:
    """The id that a request brought, if it can be one: printable ASCII and not long; else a new one."""
    if given and len(given) <= _LONGEST_ID and given.isascii() and given.isprintable():
        return given
    return new_request_id()


def why_said(header: str) -> str:
    """The reason in a header; empty without one. Raises INVALID_PARAMETER for what cannot be one."""
    try:
        return checked_why(unquote(header, errors="strict"))
    except UnicodeDecodeError:
        raise SalverError(
            "INVALID_PARAMETER", f"{WHY_HEADER} is not UTF-8", "percent-encode the bytes of its UTF-8"
        ) from None


def why_header(why: str) -> str:
    """What `why_said` reads."""
    return quote(why, safe=" ")
