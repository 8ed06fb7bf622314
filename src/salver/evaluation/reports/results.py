"""What a check says it found.

A result is plain data. Numbers, tables and plots are described, not drawn, so that a check needs no
plotting library, its result goes into JSON whole, and a test reads what a picture would show.
"""

from __future__ import annotations

import enum

import msgspec

from salver.protocol.verdict import Verdict

__all__ = ["CheckResult", "Mark", "Plot", "ResultTable", "Role", "Series"]

Cell = str | int | float | None


class Role(enum.StrEnum):
    """What a check is to the decision."""

    OPTIMISING = "optimising"
    """What one wants more of, and compares versions by."""
    SATISFICING = "satisficing"
    """What must be good enough; more of it is worth nothing."""
    SAFEGUARD = "safeguard"
    """What would make the other numbers worthless, or hide harm in their averages."""


class ResultTable(msgspec.Struct, frozen=True):
    """Rows that explain a verdict."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Mark(enum.StrEnum):
    """How a series is drawn."""

    LINE = "line"
    POINTS = "points"
    BARS = "bars"
    """Horizontal ones; the x of each is its length and `names` has what stands beside it."""


class Series(msgspec.Struct, frozen=True):
    """One curve: a value `y` at each `x`, between `low` and `high` where those are given."""

    name: str
    mark: Mark
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()


class Plot(msgspec.Struct, frozen=True):
    """A picture as data."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    diagonal: bool = False
    """Whether the line y = x is drawn, on which perfect calibration lies."""
    at_x: float | None = None
    """Where a vertical line is drawn: a threshold."""


class CheckResult(msgspec.Struct, frozen=True):
    """What a check found. The reasons are sentences that hold the numbers the verdict rests on."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    numbers: dict[str, Cell] = {}
    tables: tuple[ResultTable, ...] = ()
    plots: tuple[Plot, ...] = ()
