"""Text that anybody has typed, for people to look at: nothing in it steers a terminal or turns lines around."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["printable"]

_STEERING: Final = re.compile(
    r"[^\n\t\x20-\x7e\xa0-\U0010ffff]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control characters; marks of direction; ends of lines and paragraphs; what is not shown at all."""


def printable(text: str) -> str:
    r"""`text` with what would steer who shows it written out, names of files that are not UTF-8 as well.

    Ends of lines and tabs stay.

    >>> printable("a\x1b[2J" + chr(0x202E) + "b")
    'a\\x1b[2J\\u202eb'
    """
    return _STEERING.sub(_written_out, text).encode(errors="backslashreplace").decode()


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
