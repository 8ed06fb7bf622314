"""What the gateway knows of a connection, whatever it speaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import abstractmethod
from typing import Final

__all__ = ["Connection", "bound_unsent", "peer_of"]

_UNSENT_BYTES: Final = 64 * 2**10


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


def bound_unsent(transport: asyncio.BaseTransport | None) -> None:
    """Let the kernel hold little that it could not send: it would take megabytes before a slow reader is noticed."""
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is not None:
        with contextlib.suppress(OSError):  # a Unix socket, which is as small by itself
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def peer_of(transport: asyncio.BaseTransport | None) -> str | None:
    """The address at the other end of a connection; None for a Unix socket, or when it is gone."""
    name = transport.get_extra_info("peername") if transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else None
