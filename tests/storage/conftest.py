from __future__ import annotations

from tests.homes import clock, database, home, journal, python

__all__ = ["clock", "database", "home", "journal", "python"]
