"""The published snapshot: how desired state reaches the data path.

The controller writes the whole of it, servers read the whole of it; the revision in it tells
which of two is newer.
"""

from __future__ import annotations

from salver.protocol.errors import SalverError
from salver.protocol.tables import Tables
from salver.storage.home import Home
from salver.storage.snapshot import FollowedFile, read_json, write_json

__all__ = ["PublishedTables", "publish", "read_tables"]


def read_tables(home: Home) -> Tables | None:
    """The snapshot last published, whole; None before the first.

    Raises CORRUPT_ARTIFACT for a damaged file: keep serving what was read before.
    """
    return read_json(home.tables_path, Tables)


class PublishedTables:
    """The snapshot of a home, for one who follows it: a look costs one stat(2)."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._file = FollowedFile(home.tables_path)

    def news(self) -> Tables | None:
        """The snapshot if another was published than at the last call; None otherwise.

        Raises CORRUPT_ARTIFACT for a damaged file, once until it is replaced.
        """
        return read_tables(self._home) if self._file.changed() else None


def publish(home: Home, tables: Tables) -> bool:
    """Publish `tables` if they are newer than what is published; return whether they were.

    A damaged file counts as unpublished. REQUIRES the home lock, or to be the one controller
    below its holder: two publishers at once could put the older snapshot last.
    """
    try:
        published = read_tables(home)
    except SalverError:
        published = None
    if published is not None and published.revision >= tables.revision:
        return False
    write_json(home.tables_path, tables)
    return True
