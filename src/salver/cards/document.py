"""What cards, sheets and checklists are before they are HTML or Markdown: sections of facts and tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["NOT_STATED", "Cell", "Document", "Fact", "Grid", "Section", "amount", "day", "listed", "moment", "number"]

NOT_STATED: Final = "not stated"
_WHOLE: Final = 1e15
Cell = str | int | float | bool | None


class Fact(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is known, or is said not to be."""

    name: str
    value: str
    stated: bool = True

    @classmethod
    def of(cls, name: str, value: object, otherwise: str = NOT_STATED) -> Fact:
        """A fact; of an empty value, that nothing is said of it."""
        said = "" if value is None else str(value).strip()
        return cls(name, said) if said else cls(name, otherwise, stated=False)


class Grid(msgspec.Struct, frozen=True, omit_defaults=True):
    """A table. Cells that are verdicts are marked as such."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """One heading and what stands under it, in this order."""

    heading: str
    notes: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    tables: tuple[Grid, ...] = ()


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole card, sheet or checklist."""

    kind: str
    """`Model card`, `Data sheet` or `Readiness checklist`."""
    title: str
    at_s: float
    """When the evidence was looked at."""
    warnings: tuple[str, ...] = ()
    """What nobody may overlook."""
    verdict: str = ""
    sections: tuple[Section, ...] = ()


def moment(at_s: float | None) -> str:
    """A time for people, in UTC; empty for none.

    >>> moment(0.0)
    '1970-01-01 00:00 UTC'
    """
    return "" if at_s is None else f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%d %H:%M} UTC"


def day(at_s: float) -> str:
    """The day of a time, in UTC."""
    return f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%Y-%m-%d}"


def number(value: Cell) -> str:
    """A number for people, as many digits as tell something.

    >>> number(0.97512345), number(228), number(139264.0), number(None)
    ('0.9751', '228', '139264', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE:
        return str(int(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def amount(size_bytes: float) -> str:
    """Bytes for people.

    >>> amount(1028), amount(22_458_000)
    ('1.03 kB', '22.5 MB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names with commas between, the rest counted."""
    known = list(names)
    shown = ", ".join(known[:most])
    return shown if len(known) <= most else f"{shown} and {len(known) - most} more"
