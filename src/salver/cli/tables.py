"""Plain aligned tables for people."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salver.registry.availability import Standing

__all__ = ["counted", "date", "marks", "table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`rows` under `head` in aligned columns; nothing when there are no rows.

    >>> print(table(["a", "bc"], [["1", "2"], ["345", "6"]]))
    a    bc
    1    2
    345  6
    """
    if not rows:
        return ""
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )


def marks(standing: Standing) -> str:
    """What is to be known of a version besides its stage."""
    named = {"EMERGENCY": standing.emergency, "revoked": standing.revoked, "deleted": standing.deleted}
    return ", ".join(name for name, holds in named.items() if holds)


def counted(count: int, noun: str) -> str:
    """How many there are, for people.

    >>> counted(1, "file"), counted(1200, "record")
    ('1 file', '1,200 records')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def date(wall_s: float) -> str:
    """A time for people, in UTC.

    >>> date(0.0)
    '1970-01-01 00:00:00'
    """
    return dt.datetime.fromtimestamp(wall_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
