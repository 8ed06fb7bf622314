"""What the gateway knows of a connection, whatever it speaks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["Connection", "bound_unsent", "peer_of"]

_UNSENT_BYTES: Final = 64 * 2**10


class Connection(asyncio.Protocol):
    """A connection as the gateway sees it, and what becomes of one whose client does not read."""

    __slots__ = ("_stalled_s", "_transport", "_unsent", "gateway")

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._transport: asyncio.Transport | None = None
        self._stalled_s: float | None = None
        """Since when the client has not read, or not fast enough."""
        self._unsent = 0
        """Bytes that could not be sent at that time."""

    @property
    def peer(self) -> str | None:
        """The address of the client; None for one on a Unix socket."""
        return peer_of(self._transport)

    def pause_writing(self) -> None:
        """asyncio: the client does not read, so it is not read from."""
        self._stalled_s = self.gateway.now_s
        if self._transport is None:
            return
        self._unsent = self._transport.get_write_buffer_size()
        if self._is_read(self._transport):
            self._transport.pause_reading()

    def _is_read(self, transport: asyncio.Transport) -> bool:
        """Whether more may come from the client."""
        return not transport.is_closing()

    def _sweep_stalled(self, transport: asyncio.Transport, now_s: float) -> None:
        """Cut off a client that reads as slowly as it may not send. REQUIRES a stall."""
        assert self._stalled_s is not None
        limits, waited_s = self.gateway.limits, now_s - self._stalled_s
        if waited_s <= limits.write_stall_s:
            return
        unsent = transport.get_write_buffer_size()
        if self._unsent - unsent < waited_s * limits.body_bytes_per_s:
            transport.abort()
        self._unsent, self._stalled_s = unsent, now_s

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
