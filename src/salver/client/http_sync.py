"""HTTP/1.1 on blocking sockets, shared by threads."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Final

from salver.client.address import Address
from salver.client.dialect import Question, Reply
from salver.client.errors import CallError
from salver.client.http_request import broken, is_quiet, late, refused_connection, write_request
from salver.client.http_response import BadResponseError, ResponseReader
from salver.clock import Clock
from salver.protocol.errors import SalverError

__all__ = ["HttpTransport"]

IDLE_S: Final = 30.0
"""Connections that were quiet for longer are not used again: servers close theirs, Salver's after 75 s."""


class HttpTransport:
    """See `Transport`. At most `connections` are open; who finds all in use waits for one."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, connections: int, clock: Clock) -> None:
        self._address = address
        self._tls = tls
        self._clock = clock
        self._room = threading.BoundedSemaphore(connections)
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed = False

    def exchange(self, question: Question, left_s: float) -> Reply:
        """Send a question on a connection that is free, or a new one."""
        deadline_s = self._clock.monotonic_s() + left_s
        if not self._room.acquire(timeout=min(left_s, threading.TIMEOUT_MAX)):
            raise late(self._address, sent=False)
        try:
            connection = self._take() or _Connection(self._address, self._tls, deadline_s, self._clock)
            reply = None
            try:
                reply = connection.exchange(question, deadline_s)
            finally:
                # Also when the thread was interrupted: half an answer must not be there for the next.
                if reply is None:
                    connection.close()
            self._give_back(connection)
            return reply
        finally:
            self._room.release()

    def _take(self) -> _Connection | None:
        """A quiet connection, the one used last."""
        while True:
            with self._lock:
                if self._closed:
                    raise SalverError("CONFLICT", "the client is closed", "make another one")
                connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_usable():
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if connection.keep_alive and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close the connections; those in use when they have their answers."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class _Connection:
    """A connection with at most one request on it."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, deadline_s: float, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._reader = ResponseReader()
        self._since_s = 0.0
        try:
            self._socket = socket.create_connection((address.host, address.port), self._left(deadline_s))
        except OSError as error:
            raise refused_connection(address, error) from None
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket.settimeout(self._left(deadline_s))
                self._socket = tls.wrap_socket(self._socket, server_hostname=address.host)
        except OSError as error:
            self._socket.close()
            raise refused_connection(address, error) from None
        except BaseException:
            self._socket.close()
            raise

    @property
    def keep_alive(self) -> bool:
        """Whether it can take another request."""
        return self._reader.keep_alive

    def is_usable(self) -> bool:
        """Whether the server has not closed it meanwhile, as far as one can know."""
        return self._clock.monotonic_s() - self._since_s <= IDLE_S and is_quiet(self._socket.fileno())

    def exchange(self, question: Question, deadline_s: float) -> Reply:
        """Send a question and wait for the reply."""
        sent = False
        try:
            for part in write_request(question, self._address):
                self._socket.settimeout(self._left(deadline_s))
                self._socket.sendall(part)
            sent = True
            return self._receive(deadline_s)
        except TimeoutError:
            raise late(self._address, sent=sent) from None
        except OSError as error:
            # A server that refuses what is still being sent has said why.
            said = None if sent else self._last_words(deadline_s)
            if said is not None:
                return said
            raise broken(self._address, error, sent=sent, understood=self._reader.understood) from None
        except BadResponseError as error:
            raise CallError(
                "INTERNAL", f"{self._address.url} does not speak HTTP/1.1: {error}", may_have_run=True
            ) from None

    def _receive(self, deadline_s: float) -> Reply:
        while True:
            self._socket.settimeout(self._left(deadline_s))
            count = self._socket.recv_into(self._reader.buffer())
            reply = self._reader.received(count) if count else self._reader.ended()
            if reply is not None:
                self._since_s = self._clock.monotonic_s()
                return reply
            if not count:
                raise ConnectionResetError("closed before the answer was whole")

    def _last_words(self, deadline_s: float) -> Reply | None:
        try:
            reply = self._receive(deadline_s)
        except (OSError, BadResponseError):
            return None
        self._reader.keep_alive = False
        return reply

    def _left(self, deadline_s: float) -> float | None:
        """Seconds for the next step; None for no limit. Raises TimeoutError where none are left."""
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        return left_s if left_s <= threading.TIMEOUT_MAX else None

    def close(self) -> None:
        """Close it."""
        self._socket.close()
