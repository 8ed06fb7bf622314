"""Accepting connections: the cap, the pause when descriptors run out, the lossless end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Final

from salver.gateway.gateway import Gateway
from salver.gateway.lane import Lane
from salver.telemetry.logs import log_event

__all__ = ["Acceptor"]

_PAUSE_S: Final = 0.1
_PER_TURN: Final = 256
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REFUSAL: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nx-salver-error: TOO_MANY_CONNECTIONS\r\n"
    b"retry-after: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
)


class Acceptor:
    """Accepts on one listening socket. Lives on the event loop.

    Out of descriptors, accepting pauses instead of spinning: clients wait in the kernel's
    backlog and those connected already are served on.
    """

    def __init__(self, listener: socket.socket, gateway: Gateway, tls: ssl.SSLContext | None = None) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._gateway = gateway
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_PER_TURN):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(error)
                return
            self._take(client)

    def _take(self, client: socket.socket) -> None:
        gateway = self._gateway
        client.setblocking(False)
        if len(gateway.lanes) + len(self._tasks) >= gateway.limits.connections:
            self._refuse(client)
            return
        gateway.metrics.connections_total += 1
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        task = self._loop.create_task(self._connect(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: Lane(self._gateway),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=self._gateway.limits.header_timeout_s if self._tls else None,
            )
        except (TimeoutError, OSError, ssl.SSLError):
            client.close()

    def _refuse(self, client: socket.socket) -> None:
        gateway = self._gateway
        gateway.metrics.refused(None, "TOO_MANY_CONNECTIONS")
        body = b'{"error":"%d connections are open, the most this server takes; retry later"}' % len(gateway.lanes)
        with client, contextlib.suppress(OSError):
            if self._tls is None:
                client.send(_REFUSAL % (len(body), body))
                client.shutdown(socket.SHUT_WR)

    def _pause(self, error: OSError) -> None:
        self._gateway.metrics.accept_pauses += 1
        log_event("accept_paused", problem=errno.errorcode.get(error.errno or 0, "?"))
        self._loop.remove_reader(self._listener.fileno())
        self._paused = self._loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._paused = None
        self.start()

    async def stop(self) -> None:
        """Accept what has connected already, then no more, and close the socket."""
        if self._paused is not None:
            self._paused.cancel()
        self._accept()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
