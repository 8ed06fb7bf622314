"""Which versions crashed or hung a server process once, and so compute in their own processes."""

from __future__ import annotations

from collections.abc import Iterable

from salver.storage.home import Home
from salver.storage.snapshot import read_json, write_json

__all__ = ["isolate", "read_isolated"]


def read_isolated(home: Home) -> set[str]:
    """Their digests."""
    return set(read_json(home.isolated_path, list[str]) or ())


def isolate(home: Home, digests: Iterable[str]) -> None:
    """Add digests, durably."""
    known = read_isolated(home)
    if not known.issuperset(digests):
        write_json(home.isolated_path, sorted(known.union(digests)))
