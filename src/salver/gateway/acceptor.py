"""Accepting connections: the cap, the pause when descriptors run out, the lossless end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, cast

import msgspec

from salver.gateway.connection import Connection
from salver.gateway.gateway import Gateway
from salver.gateway.lane import Lane
from salver.protocol.errors import SalverError
from salver.telemetry.logs import log_event

__all__ = ["Acceptor"]

_PAUSE_S: Final = 0.1
_PER_TURN: Final = 256
_TURNED_AWAY: Final = 64
"""Connections beyond the cap that are told so at one time; the rest is closed without a word."""


class Acceptor:
    """Accepts on one listening socket. Lives on the event loop.

    Out of descriptors, accepting pauses instead of spinning: clients wait in the kernel's
    backlog and those connected already are served on.
    """

    def __init__(
        self,
        listener: socket.socket,
        gateway: Gateway,
        tls: ssl.SSLContext | None = None,
        lane: Callable[[Gateway], Connection] = Lane,
        refusal: Callable[[Gateway, SalverError], bytes] | None = None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._gateway = gateway
        self._tls = tls
        self._lane = lane
        self._refusal = refusal or http_refusal
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._turned_away: set[_TurnedAway] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._short_of: str | None = None
        """What has run out, until a connection is accepted again."""

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self._accept_some)

    def _accept_some(self) -> None:
        """Accept what has connected, leaving the loop free for others now and then."""
        problem = self._accept(_PER_TURN)
        if problem is None:
            return
        self._gateway.metrics.accept_pauses += 1
        if problem != self._short_of:
            self._short_of = problem
            log_event("accept_paused", problem=problem)
        self._loop.remove_reader(self._listener.fileno())
        self._paused = self._loop.call_later(_PAUSE_S, self._resume)

    def _accept(self, most: int) -> str | None:
        """Accept until nobody waits or `most` came; returns the name of what went wrong."""
        for _ in range(most):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:
                continue
            except OSError as error:
                return errno.errorcode.get(error.errno or 0, "?")
            self._short_of = None
            self._take(client)
        return None

    def _resume(self) -> None:
        self._paused = None
        self.start()

    def _take(self, client: socket.socket) -> None:
        gateway = self._gateway
        client.setblocking(False)
        protocol: Connection | _TurnedAway
        if len(gateway.lanes) < gateway.limits.connections:
            gateway.metrics.connections_total += 1
            protocol = self._lane(gateway)
            # From now on, not only once a handshake is through.
            gateway.lanes.add(protocol)
        else:
            gateway.metrics.refused(None, "TOO_MANY_CONNECTIONS")
            if len(self._turned_away) >= _TURNED_AWAY:
                client.close()
                return
            protocol = _TurnedAway(gateway, self._turned_away, self._refusal)
            self._turned_away.add(protocol)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        task = self._loop.create_task(self._connect(client, protocol))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, client: socket.socket, protocol: Connection | _TurnedAway) -> None:
        limits = self._gateway.limits
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=limits.header_timeout_s if self._tls else None,
                ssl_shutdown_timeout=limits.write_stall_s if self._tls else None,
            )
        except OSError:  # no handshake: ssl.SSLError and TimeoutError are OSErrors
            client.close()
            self._forget(protocol)
        except Exception as error:  # noqa: BLE001 - a task that nobody awaits must not die quietly
            client.close()
            self._forget(protocol)
            self._gateway.fault(error)

    def _forget(self, protocol: Connection | _TurnedAway) -> None:
        if isinstance(protocol, _TurnedAway):
            self._turned_away.discard(protocol)
        else:
            self._gateway.lanes.discard(protocol)

    def rest(self) -> None:
        """Accept no more until the next `start`; whoever connects waits in the kernel, or for another process."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        self._loop.remove_reader(self._listener.fileno())

    def let_go(self) -> None:
        """Close the socket and accept nobody from it any more."""
        self.rest()
        self._listener.close()

    async def stop(self) -> None:
        """Accept what has connected already, then no more, and close the socket."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._accept(self._gateway.limits.connections)
        self._listener.close()
        if self._connecting:
            await asyncio.wait(self._connecting)


class _TurnedAway(asyncio.Protocol):
    """A connection beyond the cap: told so, and kept for a moment so that the client sees it."""

    def __init__(
        self, gateway: Gateway, among: set[_TurnedAway], refusal: Callable[[Gateway, SalverError], bytes]
    ) -> None:
        self._gateway = gateway
        self._among = among
        self._refusal = refusal
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: say why and say no more."""
        connection = cast("asyncio.Transport", transport)
        most = self._gateway.limits.connections
        error = SalverError(
            "TOO_MANY_CONNECTIONS", f"{most} connections are open, the most this server takes", "retry later"
        )
        connection.write(self._refusal(self._gateway, error))
        self._end = asyncio.get_running_loop().call_later(self._gateway.limits.linger_s, connection.abort)
        if connection.can_write_eof():
            # Closing with unread bytes would reset the connection under the reply.
            connection.write_eof()
        else:
            connection.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the client has seen it, or has not."""
        del exc
        self._among.discard(self)
        if self._end is not None:
            self._end.cancel()


def http_refusal(gateway: Gateway, error: SalverError) -> bytes:
    """What a client of HTTP is told instead of being served."""
    body = msgspec.json.encode({"error": str(error)})
    return (
        b"HTTP/1.1 429 Too Many Requests\r\ndate: %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"x-salver-error: TOO_MANY_CONNECTIONS\r\nretry-after: 1\r\nconnection: close\r\n\r\n%b"
    ) % (gateway.date, len(body), body)
