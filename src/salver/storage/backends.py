"""What the database of a home asks of each kind of database, so that all behave alike.

begin     the block has the only write lock: what it reads stays true until it commits
read      everything in the block is of one moment, and nothing can be written
refusal   what an error of the driver means to a user
"""

from __future__ import annotations

import contextlib
from typing import Final, Protocol

from sqlalchemy import Connection, Engine

from salver.protocol.errors import SalverError

__all__ = ["POOL_OVERFLOW", "POOL_SIZE", "POOL_TIMEOUT_S", "WRITES", "Backend"]

WRITES: Final = "salver_writes"
"""The execution option that tells a block of `Database.begin` from one of `Database.read`."""
POOL_SIZE: Final = 5
POOL_OVERFLOW: Final = 10
"""Connections that are kept, and that may come on top while many ask at once."""
POOL_TIMEOUT_S: Final = 10.0
"""How long a thread waits for one of them."""


class Backend(Protocol):
    """One kind of database, at one place."""

    shared: bool
    """Whether other homes, also on other machines, may use the same database."""

    def engine(self) -> Engine:
        """A new engine whose transactions heed the option `WRITES`. Connects to nothing yet."""

    def one_opener(self) -> contextlib.AbstractContextManager[None]:
        """Held while a database is opened, where opening twice at once goes wrong."""

    def check_place(self) -> None:
        """Raises CONTROL_UNAVAILABLE when this is no longer the database that was opened."""

    def keep_copy(self, suffix: str) -> None:
        """Keep the database as it is, before it is changed, under its name and `suffix`; where that can be done.

        Called within `begin`, so the copy is what the caller sees. Raises STORAGE_FULL.
        """

    def refusal(self, error: BaseException | None, *, writing: bool) -> SalverError | None:
        """What a driver's error means to a user; None for faults of our own."""

    def prepare(self, connection: Connection) -> None:
        """What a new database needs before its tables are made."""
