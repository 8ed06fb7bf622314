"""Reasons: why somebody changes something, in one line that can be read later."""

from __future__ import annotations

from typing import Final

from salver.protocol.errors import SalverError

__all__ = ["checked_why"]

_LONGEST_WHY: Final = 1000


def checked_why(why: str) -> str:
    """A reason as it is recorded; INVALID_PARAMETER for a long one, or one with control characters."""
    why = why.strip()
    if len(why) > _LONGEST_WHY:
        raise SalverError(
            "INVALID_PARAMETER", f"the reason has {len(why)} characters", f"say why in at most {_LONGEST_WHY}"
        )
    if not why.isprintable():
        raise SalverError("INVALID_PARAMETER", "the reason has control characters", "say why in one line of text")
    return why
