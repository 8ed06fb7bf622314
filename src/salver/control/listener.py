"""One socket of the control listener: uvicorn, with an end to everything a client can keep waiting.

uvicorn bounds the bytes of a head and the time between requests, not the time a head or a body
takes, nor how long an answer is left unread; a few hundred connections that never say anything
would be all that it takes. Here each of these has its time, and when all places are taken, a new
connection gets that of the one which has waited longest without asking for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import h11
import msgspec
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from salver.protocol.errors import SalverError

__all__ = ["ControlLimits", "ControlServer"]

_STOP_S: Final = 2
"""Seconds that requests in flight get at the end; a `load` may wait much longer for its model."""


class ControlLimits(msgspec.Struct, frozen=True):
    """What the clients of one socket may take. The times are those of the data listener's limits."""

    connections: int = 256
    header_timeout_s: float = 10.0
    """From the beginning of a connection, or the first byte of a later request, to the end of the head."""
    body_grace_s: float = 5.0
    body_bytes_per_s: float = 1024.0
    write_stall_s: float = 30.0
    linger_s: float = 1.0


class _Config(uvicorn.Config):
    """What uvicorn hands to each connection."""

    limits: ControlLimits


class ControlServer(uvicorn.Server):
    """Serves `app` on a listening socket; `tls` are uvicorn's options for it. Leaves signals alone."""

    def __init__(self, app: Starlette, limits: ControlLimits, tls: dict[str, Any] | None = None) -> None:
        config = _Config(
            app,
            http=_Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # an address that the client writes itself is none
            limit_concurrency=limits.connections + 1,  # itself included
            timeout_graceful_shutdown=_STOP_S,
            **(tls or {}),
        )
        config.limits = limits
        super().__init__(config)
        self._limits = limits

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it has several servers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept from now on; a TLS handshake has its time, too."""
        loop = asyncio.get_running_loop()
        config = self.config

        def connection() -> _Connection:
            return _Connection(config, self.server_state, {})

        self.servers = [
            await loop.create_server(
                connection,
                sock=each,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=self._limits.header_timeout_s if config.ssl else None,
            )
            for each in sockets or ()
        ]
        self.started = True


class _Connection(H11Protocol):
    """One client. At most one timer of ours runs: for a head, for a body, or for the end."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = cast("_Config", config).limits
        self._timer: asyncio.TimerHandle | None = None
        self._timed: object = None
        """What the timer is for: a state of the client, in words of h11."""
        self._stalled: asyncio.TimerHandle | None = None
        self._since_s = self.loop.time()
        """When what is timed began, or the last answer was complete."""
        self._came_bytes = 0

    # asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there: it has a time to say what it wants."""
        if len(self.connections) >= self._limits.connections:
            self._make_room()
        super().connection_made(cast("asyncio.Transport", transport))
        self._time(h11.IDLE, self._limits.header_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        super().data_received(data)
        self._follow()
        self._came_bytes += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._untime()
        if self._stalled is not None:
            self._stalled.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._end_within(self._limits.write_stall_s)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._stalled is not None and not self.transport.is_closing():
            self._stalled.cancel()
            self._stalled = None

    # uvicorn calls.

    def on_response_complete(self) -> None:
        """An answer has been written; perhaps the next request is there already."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._untime()
            self._end_within(self._limits.write_stall_s)
        else:
            self._follow()
            if self._timer is None:
                self._since_s = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more came; what has been answered may still be on its way."""
        super().timeout_keep_alive_handler()
        self._end_within(self._limits.write_stall_s)

    # Time.

    def _follow(self) -> None:
        """Time what the client is doing now."""
        if self.transport.is_closing():
            return
        doing = self.conn.their_state
        if doing is h11.SEND_BODY:
            self._time(doing, self._limits.body_grace_s)
        elif doing is h11.IDLE and self.timeout_keep_alive_task is None:
            self._time(doing, self._limits.header_timeout_s)
        else:
            self._untime()

    def _time(self, doing: object, seconds: float) -> None:
        if self._timed is doing:
            return
        self._untime()
        self._timed, self._since_s, self._came_bytes = doing, self.loop.time(), 0
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _untime(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timed = self._timer = None

    def _too_slow(self) -> None:
        limits = self._limits
        if self._timed is h11.SEND_BODY:
            spent_s = self.loop.time() - self._since_s
            if self._came_bytes >= spent_s * limits.body_bytes_per_s:
                self._timer = self.loop.call_later(limits.body_grace_s, self._too_slow)
                return
            what = f"the body came at less than {limits.body_bytes_per_s:g} bytes a second"
        else:
            what = f"the headers were not complete after {limits.header_timeout_s:g} s"
        self._untime()
        self._refuse(SalverError("REQUEST_TIMEOUT", what, "send requests without pauses"))

    def _refuse(self, error: SalverError) -> None:
        """Say why, where nothing has been said yet, and end the connection."""
        self._unset_keepalive_if_required()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = msgspec.json.encode(
                {"error": str(error), "code": error.code, "message": error.message, "remedy": error.remedy}
            )
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("x-salver-error", error.code),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=error.http, headers=headers), h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            # Whoever still reads the body learns that there is no client any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._end_within(self._limits.linger_s)

    def _end_within(self, seconds: float) -> None:
        """Closing waits for a client to read what it is owed, but not for ever."""
        self._stalled = self._stalled or self.loop.call_later(seconds, self.transport.abort)

    # Room.

    def _make_room(self) -> None:
        waiting = [each for each in self.connections if isinstance(each, _Connection) and each.asks_nothing]
        oldest = min(waiting, key=lambda each: each._since_s, default=None)
        if oldest is not None:
            self.connections.discard(oldest)
            oldest.transport.abort()

    @property
    def asks_nothing(self) -> bool:
        """Whether no request of it is being received or answered: its head is not complete."""
        return self.conn.their_state is h11.IDLE
