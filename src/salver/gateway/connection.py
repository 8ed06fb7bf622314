"""What the gateway knows of a connection, whatever it speaks."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

__all__ = ["Connection", "peer_of"]


class Connection(asyncio.Protocol):
    """A connection as the gateway sees it."""

    __slots__ = ()

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """The address of the client; None for one on a Unix socket."""

    @abstractmethod
    def sweep(self, now_s: float) -> None:
        """Close the connection if it is too slow, stalled or idle for too long; called twice a second."""

    @abstractmethod
    def drain(self, now_s: float) -> None:
        """Close the connection once it has been quiet for a moment and nothing is owed to the client."""


def peer_of(transport: asyncio.BaseTransport | None) -> str | None:
    """The address at the other end of a connection; None for a Unix socket, or when it is gone."""
    name = transport.get_extra_info("peername") if transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else None
